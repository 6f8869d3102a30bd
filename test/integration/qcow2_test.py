"""Downloads as qcow2 with curl, from the real daemon: of files, of qemu-nbd, through a proxy, and after a cut."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real import certificates
from real import daemon as real_daemon
from real.daemon import Daemon

from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage

MIB = 1024**2
SIZE = 600 * MIB + 4096
PROXY = """\
[local]
enable = false
[backend_http]
ca_file = {ca_file}
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory) -> Iterator[Daemon]:
    with real_daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def write_disk(path: Path) -> None:
    """Make a file with data here and there, up to its end."""
    chance = random.Random(1)
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for offset in [0, 5 * MIB, 5 * MIB + 200 * 1024, *range(100 * MIB, 140 * MIB, 2 * MIB), SIZE - 4096]:
            os.pwrite(file.fileno(), chance.randbytes(4096), offset)


@contextlib.contextmanager
def served_file(daemon: Daemon, disk: Path) -> Iterator[str]:
    yield daemon.add_ticket(url=f"file://{disk}", size=SIZE, sparse=True)


@contextlib.contextmanager
def served_nbd(daemon: Daemon, disk: Path) -> Iterator[str]:
    image = disk.with_suffix(".source")
    img.convert(str(disk), "raw", str(image), "qcow2")
    with QemuNbd(str(image), "qcow2") as nbd:
        yield daemon.add_ticket(url=nbd.url, size=SIZE)


@contextlib.contextmanager
def served_proxy(daemon: Daemon, disk: Path) -> Iterator[str]:
    text = PROXY.format(ca_file=certificates.authority().cert_file)
    with served_nbd(daemon, disk) as url, real_daemon.running(disk.parent / "proxy", text) as proxy:
        yield proxy.add_ticket(url=url, size=SIZE)


def curl(daemon: Daemon, *arguments: object) -> None:
    command = ["curl", "--silent", "--show-error", "--fail", "--cacert", daemon.ca_file, *arguments]
    subprocess.run(list(map(str, command)), check=True)


def verify(disk: Path, image: Path) -> None:
    """Raise if QEMU finds an error in an image, or another content than that of the disk."""
    for command in (["check", image], ["compare", "-f", "raw", "-F", "qcow2", disk, image]):
        subprocess.run(["qemu-img", *map(str, command)], check=True, capture_output=True)


@pytest.mark.parametrize("serve", [served_file, served_nbd, served_proxy])
def test_download(daemon, tmp_path, serve):
    disk, image = tmp_path / "disk", tmp_path / "image"
    write_disk(disk)
    with serve(daemon, disk) as url:
        curl(daemon, f"{url}?format=qcow2", "--output", image)
    verify(disk, image)
    # Of each piece one cluster, and some tables.
    assert image.stat().st_size < 3 * MIB


def test_a_download_that_broke_goes_on(daemon, tmp_path):
    disk, image = tmp_path / "disk", tmp_path / "image"
    write_disk(disk)
    with served_nbd(daemon, disk) as url:
        curl(daemon, f"{url}?format=qcow2", "--range", "0-1234567", "--output", image)
        curl(daemon, f"{url}?format=qcow2", "--continue-at", "-", "--output", image)
    verify(disk, image)
