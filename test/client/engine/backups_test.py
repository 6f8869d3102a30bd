"""The life of a backup in an engine that takes its time."""

from __future__ import annotations

import pytest

from ovirt_imageio.client.backup.manifest import Machine
from ovirt_imageio.client.engine.backups import Backup, end_backup, has_checkpoint
from ovirt_imageio.client.engine.connection import EngineError


@pytest.fixture
def machine(engine):
    return Machine(engine.add_machine("web", engine.add_image(b"x" * 512)), "web")


@pytest.fixture
def start(engine, connection, machine):
    def start(**options):
        [disk_id] = engine.disks
        return Backup(connection, machine, [disk_id], **{"since": None, "quiesced": False, **options})

    return start


def test_whole_life(engine, start):
    engine.backup_phases = ["initializing", "starting", "ready"]
    engine.final_backup_phases = ["finalizing", "succeeded"]
    backup = start()
    backup.wait_ready()
    assert backup.checkpoint is None
    assert backup.incremental_disks() == set()
    backup.finalize()
    assert engine.asked.count("get_backup") == 5


def test_does_not_start_in_time(engine, start):
    engine.backup_phases = ["starting"]
    with pytest.raises(EngineError, match="The backup of 'web' did not start within 300 seconds"):
        start().wait_ready()


def test_does_not_end_in_time(engine, start):
    engine.final_backup_phases = ["finalizing"]
    with pytest.raises(EngineError, match="has not ended the backup of 'web' within 300 seconds"):
        start().finalize()


def test_old_engine_forgets_it(engine, start):
    backup = start()
    engine.on["get_backup"] = engine.backups.clear
    backup.finalize()


def test_giving_up_fails(engine, start, caplog):
    engine.refuse("finalize_backup", 500, "Out of order")
    backup = start()
    backup.give_up()
    assert f"Out of order; as long as it runs, there can be no other one: end backup {backup.id}" in caplog.text


def test_ending_what_is_gone(connection, machine, caplog):
    end_backup(connection, machine, "0d4b4dcd-6f41-4a4e-a6a2-6f9f0a3f9c11")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("known", "expected"), [({"state": "created"}, True), ({"state": "invalid"}, False), (None, False)]
)
def test_checkpoints(engine, connection, machine, known, expected):
    engine.checkpoints = {"one": known} if known else {}
    assert has_checkpoint(connection, machine, "one") is expected


def test_checkpoint_that_cannot_be_looked_for(engine, connection, machine):
    engine.refuse("get_checkpoint", 500, "Out of order")
    with pytest.raises(EngineError, match="Cannot look for checkpoint one: Out of order"):
        has_checkpoint(connection, machine, "one")
