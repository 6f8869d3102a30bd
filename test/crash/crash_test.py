"""A sample of the crashes that `make soak T=crash` has more of. The id of a test has its seed."""

from __future__ import annotations

import random

import pytest
from crash import journal, rounds
from crash.ledger import Ledger, Lost
from fakes.volatile import SECTOR, VolatileDisk

from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.client import resume

SEEDS = (1, 2, 3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", rounds.WAYS)
def test_what_was_flushed_survives_a_crash(tmp_path, way, seed):
    result = rounds.crash_after(tmp_path, way, seed)
    assert result.disks > 50
    assert result.sectors > 100


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", ["http", "proxy"])
def test_what_was_flushed_survives_while_the_power_of_the_nbd_server_fails(tmp_path, way, seed):
    result = rounds.crash_amid(tmp_path, way, seed)
    assert result.sectors > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_flushed_to_a_file_survives_a_crash(tmp_path, seed):
    result = rounds.crash_file(tmp_path, seed)
    assert result.sectors > 100


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", journal.WAYS)
def test_what_a_journal_says_is_done_is_done(tmp_path, way, seed):
    """A journal of an image that was lost could come back after a crash, as the folder was not synced."""
    disks, ranges = journal.crash_journal(tmp_path, way, seed)
    assert disks > 100
    assert ranges > 10


# The method finds what is planted.


def find(tmp_path, crash, way, seeds=10):
    """Return whether one of some seeds finds that something is lost."""
    for seed in range(seeds):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            crash(folder, way, seed)
        except Lost:
            return True
    return False


def test_a_flush_that_does_nothing_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(NBDBackend, "flush", lambda self: None)
    assert find(tmp_path, rounds.crash_after, "http")


def test_a_loss_that_is_not_told_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(UnflushedWrites, "note_break", lambda self: None)
    assert find(tmp_path, rounds.crash_amid, "http")


def test_a_folder_that_is_not_synced_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "sync_folder", lambda path: None)
    assert find(tmp_path, journal.crash_journal, "download-of-a-lost-image")


def test_disk():
    disk = VolatileDisk(4 * SECTOR)
    disk.write(0, b"a" * SECTOR)
    with disk.flushing():
        # Too late for that flush.
        disk.write(SECTOR, b"b" * SECTOR)
    disk.write(2 * SECTOR, b"c" * SECTOR, is_durable=True)
    before = {disk.after_crash(2, random.Random(seed)) for seed in range(50)}
    assert before == {bytes(4 * SECTOR), b"a" * SECTOR + bytes(3 * SECTOR)}
    left = {disk.after_crash(len(disk.log), random.Random(seed)) for seed in range(50)}
    tail = b"c" * SECTOR + bytes(SECTOR)
    assert left == {b"a" * SECTOR + middle + tail for middle in (bytes(SECTOR), b"b" * SECTOR)}


def test_ledger():
    ledger = Ledger(iter(range(0, 100, 10)).__next__)
    first = ledger.begin(0, b"a" * SECTOR)
    ledger.flushed([first])
    ledger.begin(0, b"b" * SECTOR)
    assert ledger.check(5, bytes(SECTOR)) == 0
    assert ledger.check(15, b"a" * SECTOR) == 1
    assert ledger.check(25, b"b" * SECTOR) == 1
    for point, disk in ((15, bytes(SECTOR)), (15, b"b" * SECTOR), (25, b"c" * SECTOR)):
        with pytest.raises(Lost):
            ledger.check(point, disk)
