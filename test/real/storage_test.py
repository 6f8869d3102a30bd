"""The storage that tests get is what they ask for."""

from __future__ import annotations

import fcntl
import os
import subprocess

import pytest
from real import storage


def test_sector_size(block_storage):
    assert block_storage.sector_size == (4096 if block_storage.name.endswith("4k") else 512)
    out = subprocess.check_output(["blockdev", "--getss", block_storage.path], text=True)
    assert int(out) == block_storage.sector_size


def test_file_system(file_storage):
    out = subprocess.check_output(["stat", "-f", "-c", "%T", os.path.dirname(file_storage.path)], text=True)
    assert out.strip() == {"ext4": "ext2/ext3", "xfs": "xfs"}[file_storage.kind]
    subprocess.check_call(["fallocate", "--length", "1m", file_storage.path])


def test_no_fallocate(ext2_storage):
    result = subprocess.run(["fallocate", "--length", "1m", ext2_storage.path], stderr=subprocess.PIPE, text=True)
    assert "not supported" in result.stderr


def test_starts_empty(any_storage):
    if any_storage.kind == "block":
        with open(any_storage.path, "rb") as device:
            assert not any(device.read(1024**2))
        with open(any_storage.path, "wb") as device:
            device.write(b"dirty for the next one" * 1000)
    else:
        assert os.listdir(os.path.dirname(any_storage.path)) == []
    with open(any_storage.path, "wb") as device:
        device.write(b"writable")


def test_block_devices_are_taken_in_turns(block_storage):
    with open(block_storage.path, "rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_missing_storage_tells_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BASE", tmp_path)
    with pytest.raises(storage.Missing, match="make storage"), storage.using("xfs-4k"):
        pass


def test_missing_storage_tells_why(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "BASE", tmp_path)
    (tmp_path / "xfs-4k-missing").write_text("no loop devices here\n")
    with pytest.raises(storage.Missing, match="no xfs-4k storage: no loop devices here"), storage.using("xfs-4k"):
        pass


def test_device_of_somebody_else_is_not_used(block_storage, tmp_path, monkeypatch):
    # After a reboot, the link names a device that has another backing file now.
    monkeypatch.setattr(storage, "BASE", tmp_path)
    link = tmp_path / f"{block_storage.name}-loop"
    link.symlink_to(os.path.realpath(block_storage.path))
    assert not storage.is_usable(block_storage.name)
    storage.forget_lost_device(block_storage.name)
    assert not link.is_symlink()
