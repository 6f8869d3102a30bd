"""Disks in the engine."""

from __future__ import annotations

import pytest

from ovirt_imageio.client.engine import disks
from ovirt_imageio.client.engine.connection import EngineError, NoSuchThing
from ovirt_imageio.client.engine.plan import Plan


def add(connection, plan, domain="data"):
    return disks.add_disk(connection, plan, "/images/disk.v1.iso", domain)


def test_iso(engine, connection):
    disk_id = add(connection, Plan("raw", "raw", 4096, None, False, True))
    disk = engine.disks[disk_id]
    assert (disk["content_type"], disk["format"], disk["name"]) == ("iso", "raw", "disk.v1")
    assert str(disk["sparse"]).lower() == "false"
    assert "backup" not in disk
    assert "initial_size" not in disk


def test_engine_takes_too_long(engine, connection):
    engine.statuses = ["locked"]
    disk_id = add(connection, Plan("raw", "raw", 4096, None, True, False))
    with pytest.raises(EngineError, match=r"has not made disk .* within 120 seconds; disk_timeout in"):
        disks.wait_disk(connection, disk_id, 120)
    assert engine.asked.count("get_disk") == 7


def test_domain(engine, connection):
    assert disks.find_domain(connection, engine.add_image(b"x", "big disks")) == "big disks"
    lun = engine.add_image(b"x")
    engine.disks[lun]["storage_domains"] = []
    assert disks.find_domain(connection, lun) is None
    with pytest.raises(NoSuchThing, match="Cannot find disk 1: Entity not found"):
        disks.find_domain(connection, "1")


def test_removal_that_fails_is_logged(engine, connection, caplog):
    disks.remove_disk(connection, "1")
    assert not caplog.records
    engine.refuse("remove_disk", 409, "Locked")
    disks.remove_disk(connection, "1")
    assert "Disk 1 is incomplete, and still there: Cannot remove disk 1: Locked" in caplog.text
