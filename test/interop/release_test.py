"""Ours and the released package talk to one another: our library to its daemon, its library to ours."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from real import daemon, release
from real.nbd import nbdkit

from ovirt_imageio import client
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage

MiB = 1024**2
SIZE = 8 * MiB

PREAMBLE = "import sys\nfrom ovirt_imageio import client\n"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[daemon.Daemon]:
    """Run the released daemon."""
    try:
        release.python()
    except release.Missing as reason:
        pytest.skip(str(reason))
    with release.running(tmp_path_factory.mktemp("release")) as running:
        yield running


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[daemon.Daemon]:
    """Run our daemon, for the released library."""
    try:
        release.python()
    except release.Missing as reason:
        pytest.skip(str(reason))
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "source.qcow2"
    img.create(str(path), "qcow2", SIZE)
    qemu_io(path, "write -P 1 0 64k", "write -P 2 1m 1m", "write -z 3m 128k", "write -P 3 4m 192k")
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    img.create(str(path), "qcow2", SIZE)
    qemu_io(path, "write -P 9 0 8m")
    return path


def qemu_io(path: Path, *commands: str) -> None:
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *arguments, str(path)], check=True, stdout=subprocess.DEVNULL)


def compare(one: Path, two: Path) -> None:
    done = subprocess.run(["qemu-img", "compare", str(one), str(two)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def exported(running: daemon.Daemon, path: Path, **options: object) -> Iterator[str]:
    dirty = "bitmap" in options
    with QemuNbd(str(path), "qcow2", **options) as nbd:
        yield running.add_ticket(url=nbd.url, size=SIZE, sparse=True, dirty=dirty)


# --- Our library, their daemon ---------------------------------------------------------------------------------------


def test_our_upload_to_their_daemon(theirs, image, disk):
    counted: list[int] = []
    with exported(theirs, disk) as url:
        client.upload(str(image), url, theirs.ca_file, progress=counted.append, verify=True)
    compare(image, disk)
    assert sum(counted) == SIZE


def test_our_upload_that_does_not_fit_their_disk(theirs, tmp_path, disk):
    large = tmp_path / "large.qcow2"
    img.create(str(large), "qcow2", 2 * SIZE)
    qemu_io(large, "write -P 1 0 16m")
    with exported(theirs, disk) as url, pytest.raises(client.Error):
        client.upload(str(large), url, theirs.ca_file)


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_our_download_from_their_daemon(theirs, image, tmp_path, fmt):
    copy = tmp_path / "copy"
    counted: list[int] = []
    with exported(theirs, image) as url:
        client.download(url, str(copy), theirs.ca_file, fmt=fmt, progress=counted.append, verify=True)
    compare(image, copy)
    assert sum(counted) == SIZE


def test_our_incremental_download_from_their_daemon(theirs, image, tmp_path):
    base = tmp_path / "base.qcow2"
    copy = tmp_path / "copy.qcow2"
    with exported(theirs, image) as url:
        client.download(url, str(base), theirs.ca_file)
    subprocess.run(["qemu-img", "bitmap", "--add", str(image), "one"], check=True)
    qemu_io(image, "write -P 8 512k 64k", "write -z 1m 64k")
    with exported(theirs, image, bitmap="one") as url:
        backing = {"backing_file": str(base), "backing_format": "qcow2"}
        client.download(url, str(copy), theirs.ca_file, incremental=True, **backing)
    compare(image, copy)


def test_our_view_of_their_disk(theirs, image):
    extents, checksum = list(client.extents(str(image))), client.checksum(str(image))
    with exported(theirs, image) as url:
        assert list(client.extents(url, cafile=theirs.ca_file)) == extents
        assert client.checksum(url, cafile=theirs.ca_file) == checksum
        with client.ImageioClient(url, theirs.ca_file) as connection:
            assert connection.size() == SIZE
            connection.write(0, b"hello")
            connection.flush()
            buffer = bytearray(6)
            connection.read(0, buffer)
            assert buffer == b"hello\1"


def test_our_resume_on_their_daemon(theirs, image, disk):
    class Stop(Exception):
        pass

    def stop(count: int) -> None:
        raise Stop

    with exported(theirs, disk) as url:
        with pytest.raises(Stop):
            client.upload(str(image), url, theirs.ca_file, progress=stop, resume=True)
        client.upload(str(image), url, theirs.ca_file, resume=True)
    compare(image, disk)


# --- Their library, our daemon ---------------------------------------------------------------------------------------


def test_their_upload_to_our_daemon(ours, image, disk):
    with exported(ours, disk) as url:
        release.run(PREAMBLE + "client.upload(*sys.argv[1:])", str(image), url, ours.ca_file)
    compare(image, disk)


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_their_download_from_our_daemon(ours, image, tmp_path, fmt):
    copy = tmp_path / "copy"
    with exported(ours, image) as url:
        release.run(PREAMBLE + f"client.download(*sys.argv[1:], fmt='{fmt}')", url, str(copy), ours.ca_file)
    compare(image, copy)


def test_their_incremental_download_from_our_daemon(ours, image, tmp_path):
    copy = tmp_path / "copy.qcow2"
    subprocess.run(["qemu-img", "bitmap", "--add", str(image), "one"], check=True)
    qemu_io(image, "write -P 8 512k 64k")
    with exported(ours, image, bitmap="one") as url:
        release.run(PREAMBLE + "client.download(*sys.argv[1:], incremental=True)", url, str(copy), ours.ca_file)
    found = [extent for extent in client.extents(str(copy)) if extent.data]
    assert found == [client.ZeroExtent(512 * 1024, 64 * 1024, False, False)]


# --- Both say the same -----------------------------------------------------------------------------------------------


def test_both_say_the_same_of_an_image(image):
    try:
        said = release.run(
            PREAMBLE
            + "import json\n"
            + "name = sys.argv[1]\n"
            + "print(json.dumps([client.checksum(name), client.info(name), client.measure(name, 'raw'),"
            + " [list(extent) for extent in client.extents(name)]]))",
            str(image),
        )
    except release.Missing as reason:
        pytest.skip(str(reason))
    name = str(image)
    extents = [list(extent) for extent in client.extents(name)]
    assert json.loads(said) == [client.checksum(name), client.info(name), client.measure(name, "raw"), extents]


# Our proxy, on the way to their host.


@pytest.mark.parametrize("length", [1000, MiB, 3 * MiB + 7, SIZE])
def test_upload_of_unknown_length_through_our_proxy(theirs, ours, tmp_path, length):
    """They take no chunks."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"." * SIZE)
    at_host = theirs.add_ticket(url=f"file://{disk}", size=SIZE)
    path = "/images/" + ours.add_ticket(url=at_host, size=SIZE).rpartition("/")[2]
    before = len(theirs.log())
    with contextlib.closing(ours.connect()) as connection:
        connection.request("PUT", path, (b"x" * min(99_999, length - at) for at in range(0, length, 99_999)))
        assert connection.getresponse().status == 200
    assert disk.read_bytes() == b"x" * length + b"." * (SIZE - length)
    assert "WARN" not in theirs.log()[before:]
    assert "ERROR" not in theirs.log()[before:]


def test_their_host_cannot_write(theirs, ours):
    with nbdkit("--filter=error", "memory", str(SIZE), "error-pwrite=EIO", "error-pwrite-rate=1") as path:
        at_host = theirs.add_ticket(url=f"nbd:unix:{path}", size=SIZE)
        path = "/images/" + ours.add_ticket(url=at_host, size=SIZE).rpartition("/")[2]
        with contextlib.closing(ours.connect()) as connection:
            connection.request("PUT", path, (bytes(MiB) for _ in range(3)))
            assert connection.getresponse().status == 500
