"""Each program of docs/examples/ does what it says."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from docs.scene import PROGRAMS
from docs.scenes import exported
from real import daemon
from tools.source import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.storage]

FOLDER = ROOT / "docs" / "examples"

KiB = 1024
MiB = 1024**2
SIZE = 16 * MiB

# fetch, and streams that are bodies.
needs_node = pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
needs_qemu = pytest.mark.skipif(not all(map(shutil.which, ("qemu-img", "qemu-nbd", "qemu-io"))), reason="needs qemu")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def disk(tmp_path):
    """A disk of the host: data, a hole, and data at its end."""
    return make_image(tmp_path / "disk")


@pytest.fixture
def url(host, disk):
    return host.add_ticket(url=f"file://{disk}", size=SIZE, sparse=True)


def make_image(path: Path) -> Path:
    with path.open("wb") as file:
        file.write(os.urandom(3 * MiB))
        file.seek(SIZE - MiB)
        file.write(os.urandom(MiB))
    return path


def run(host, name, *arguments, succeeds=True, **variables):
    """Run an example; return what it printed."""
    program = {".py": [sys.executable], ".mjs": ["node"], ".sh": ["sh"]}[Path(name).suffix]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "NODE_EXTRA_CA_CERTS": host.ca_file, **variables}
    command = [*program, str(FOLDER / name), *map(str, arguments)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
    return done.stdout if succeeds else done.stderr


def test_download(host, url, disk, tmp_path):
    copy = tmp_path / "copy"
    assert run(host, "download.sh", url, copy, host.ca_file) == f"{copy}: {SIZE} bytes\n"
    os.truncate(copy, 5 * MiB)
    run(host, "download.sh", url, copy, host.ca_file)
    assert copy.read_bytes() == disk.read_bytes()


def test_download_that_is_refused(host, url, tmp_path):
    assert "403" in run(host, "download.sh", url + "x", tmp_path / "copy", host.ca_file, succeeds=False)
    assert not (tmp_path / "copy").exists()


def test_parallel_download(host, url, disk, tmp_path):
    assert "over 3 connections" in run(host, "parallel_download.py", url, tmp_path / "copy", host.ca_file, 3)
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()


def test_upload_sparse(host, url, disk, tmp_path):
    image = make_image(tmp_path / "image")
    run(host, "upload_sparse.py", image, url, host.ca_file)
    assert disk.read_bytes() == image.read_bytes()
    assert disk.stat().st_blocks * 512 < 5 * MiB


@needs_qemu
def test_changed_blocks(host, tmp_path):
    with exported(tmp_path / "disk.qcow2", f"{tmp_path}/sock"):
        url = host.add_ticket(url=f"nbd:unix:{tmp_path}/sock", size=SIZE, dirty=True)
        copy = tmp_path / "copy"
        run(host, "download.sh", url, copy, host.ca_file)
        change = tmp_path / "change"
        change.write_bytes(os.urandom(2 * MiB))
        command = ["curl", "-sSf", "--cacert", host.ca_file, "-T", change, "-H", f"Content-Range: bytes {MiB}-*/*", url]
        subprocess.run(command, check=True)
        assert run(host, "changed_blocks.py", url, copy, host.ca_file) == f"{2 * MiB} bytes were downloaded\n"
        assert copy.read_bytes()[MiB : 3 * MiB] == change.read_bytes()
        assert run(host, "checksum.py", copy, url, host.ca_file) == "They are the same\n"


def test_move_disk(host, url, disk, tmp_path):
    other = make_image(tmp_path / "other")
    run(host, "move_disk.py", url, host.add_ticket(url=f"file://{other}", size=SIZE, sparse=True), host.ca_file)
    assert other.read_bytes() == disk.read_bytes()


def test_checksum(host, url, disk, tmp_path):
    assert run(host, "checksum.py", disk, url, host.ca_file) == "They are the same\n"
    other = make_image(tmp_path / "other")
    assert "They differ" in run(host, "checksum.py", other, url, host.ca_file, succeeds=False)


@needs_qemu
def test_backup(host, url, disk, tmp_path):
    image = tmp_path / "backup.qcow2"
    assert f"{SIZE} bytes" in run(host, "backup.py", url, image, host.ca_file)
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, image], check=True)


def test_watch_transfer(host, disk, tmp_path):
    command = [sys.executable, FOLDER / "watch_transfer.py", disk, host.folder / "etc"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ticket = process.stdout.readline().strip().rpartition("/")[2]
        image = make_image(tmp_path / "image")
        subprocess.run(["curl", "-sSf", "--cacert", host.ca_file, "-T", image, host.url(ticket)], check=True)
        assert re.search(r"^100 %, \d+ MiB/s$", process.stdout.read(), re.MULTILINE)
    assert process.returncode == 0
    assert disk.read_bytes() == image.read_bytes()
    assert host.control("GET", f"/tickets/{ticket}")[0] == 404


@needs_node
def test_upload_stream(host, url, disk, tmp_path):
    image = make_image(tmp_path / "image")
    assert "Written, and safe: " in run(host, "upload.mjs", image, url)
    assert disk.read_bytes() == image.read_bytes()
    assert "Forbidden: No such ticket" in run(host, "upload.mjs", image, url + "x", succeeds=False)


@needs_node
def test_partitions(host, url, disk):
    assert run(host, "partitions.mjs", url) == "The disk has no GUID partition table\n"
    with disk.open("r+b") as file:
        file.seek(512)
        file.write(struct.pack("<8s64xQII", b"EFI PART", 2, 4, 128).ljust(512, b"\0"))
        file.write(struct.pack("<16s16sQQQ72s", b"type", b"unique", 2048, 4095, 0, "böot".encode("utf-16-le")))
        file.write(bytes(3 * 128))
    assert run(host, "partitions.mjs", url) == "1: sectors 2048 to 4095 böot\n"


@needs_qemu
def test_look_inside(host, url, tmp_path):
    launcher = tmp_path / "ovirt-img"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m {PROGRAMS["ovirt-img"]} "$@"\n')
    launcher.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert '"zero": true' in run(host, "look_inside.sh", url, host.ca_file, PATH=path)
    assert "disk size" in run(host, "look_inside.sh", url, host.ca_file, "qemu-img", "info", "{}", PATH=path)


def test_each_example_is_told_and_tried():
    names = {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".sh", ".mjs")}
    told = re.findall(r"\]\(([a-z_]+\.(?:py|sh|mjs))\)", (FOLDER / "README.md").read_text())
    tried = re.findall(r'"([a-z_]+\.(?:py|sh|mjs))"', Path(__file__).read_text())
    assert names == set(told) == set(tried)
