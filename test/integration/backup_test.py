"""The tutorial of docs/client.md: back up a disk that is written to, full and incremental, and restore it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real import daemon
from real.qemu import Qemu

from ovirt_imageio import client
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = [
    pytest.mark.storage,
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="qemu-system-x86_64 is not installed"),
]

KiB = 1024
MiB = 1024**2
SIZE = 16 * MiB


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="backup-") as path:
        yield Path(path)


def snapshot(url: str, path: Path) -> Path:
    """Let qemu copy what a backup shows, before a client looks."""
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", url, str(path)], check=True)
    return path


def compare(one: Path, two: Path) -> None:
    done = subprocess.run(["qemu-img", "compare", str(one), str(two)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_backup_and_restore(folder, tmp_path):
    disk, full, monday = folder / "disk.qcow2", tmp_path / "full.qcow2", tmp_path / "monday.qcow2"
    img.create(str(disk), "qcow2", SIZE)
    with daemon.running(tmp_path) as running, Qemu(folder, disk) as qemu:
        qemu.write("write -P 1 0 2m", "write -P 2 8m 1m")

        with qemu.backup("sunday") as nbd_url:
            expected = snapshot(nbd_url, tmp_path / "sunday.raw")
            # The guest goes on; the backup must not see it.
            qemu.write("write -P 3 1m 64k", "write -z 8m 64k")
            url = running.add_ticket(url=nbd_url, size=SIZE, ops=["read"])
            client.download(url, str(full), running.ca_file, verify=True)
            running.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")
        compare(expected, full)

        with qemu.backup("monday", since="sunday") as nbd_url:
            expected = snapshot(nbd_url, tmp_path / "monday.raw")
            qemu.write("write -P 4 4m 1m")
            url = running.add_ticket(url=nbd_url, size=SIZE, ops=["read"], dirty=True)
            changed = [extent for extent in client.extents(url, cafile=running.ca_file, dirty=True) if extent.dirty]
            backing = {"backing_file": str(full), "backing_format": "qcow2"}
            client.download(url, str(monday), running.ca_file, incremental=True, verify=True, **backing)
            running.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")
        compare(expected, monday)
        # Exactly the clusters that were rewritten.
        assert changed == [
            client.DirtyExtent(1 * MiB, 64 * KiB, True, False),
            client.DirtyExtent(8 * MiB, 64 * KiB, True, True),
        ]

        restored = tmp_path / "restored.qcow2"
        img.create(str(restored), "qcow2", SIZE)
        with QemuNbd(str(restored), "qcow2") as nbd:
            url = running.add_ticket(url=nbd.url, size=SIZE, sparse=True)
            client.upload(str(monday), url, running.ca_file, verify=True)
            running.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")
        compare(expected, restored)
