"""The client library against the real daemon, with real images behind qemu-nbd; qemu-img judges every result."""

from __future__ import annotations

import contextlib
import glob
import inspect
import json
import os
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real import certificates, daemon

from ovirt_imageio import client
from ovirt_imageio.client import ways
from ovirt_imageio.geometry.ranges import Ranges
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage

MiB = 1024**2
KiB = 1024
SIZE = 8 * MiB

# Local, so over the Unix socket; and the same over TLS, where the daemon offers no such socket.
ROUTES = {"unix": "", "https": "[local]\nenable = false\n"}
# Up to which length pieces go by NBD.
LIMITS = {"HTTP": 0, "NBD": 2**63}


@pytest.fixture(scope="module", params=["unix-NBD", "https-NBD", "https-HTTP"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[daemon.Daemon]:
    route, _, way = request.param.partition("-")
    with daemon.running(tmp_path_factory.mktemp("daemon"), ROUTES[route]) as running, pytest.MonkeyPatch.context() as m:
        m.setattr(ways, "SMALL", LIMITS[way])
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[daemon.Daemon]:
    with daemon.running(tmp_path_factory.mktemp("daemon"), "[logger_root]\nlevel = DEBUG\n") as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test that leaves a qemu-nbd of the library, or its folder, or a connection to the daemon."""
    # A short name: the path of a Unix socket has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="ic-")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    children = set(child_processes())
    yield
    assert os.listdir(folder) == []
    assert set(child_processes()) <= children
    os.rmdir(folder)


def child_processes() -> list[int]:
    """Return the processes that this one started."""
    return [int(pid) for path in glob.glob("/proc/self/task/*/children") for pid in Path(path).read_text().split()]


@contextlib.contextmanager
def exported(running: daemon.Daemon, path: Path, fmt: str, size: int = SIZE, **fields: object) -> Iterator[str]:
    """Serve an image through qemu-nbd and a ticket; give the transfer URL."""
    with QemuNbd(
        str(path), fmt, **{key: fields.pop(key) for key in ("bitmap", "backing_chain") if key in fields}
    ) as nbd:
        url = running.add_ticket(url=nbd.url, size=size, sparse=True, **fields)
        yield url
        running.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")


def make(path: Path, fmt: str, size: int = SIZE, pattern: bool = True, **options: str) -> Path:
    """Create an image with data, zeroes and holes."""
    img.create(str(path), fmt, size, **options)
    if pattern:
        write(
            path,
            fmt,
            "write -P 1 0 64k",
            "write -P 2 1m 1m",
            "write -z 3m 128k",
            "write -P 3 4m 192k",
            f"write -P 4 {size - 65536} 64k",
        )
    return path


def write(path: Path, fmt: str, *commands: str) -> None:
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", fmt, *arguments, str(path)], check=True, stdout=subprocess.DEVNULL)


def convert(source: Path, target: Path, fmt: str, *options: str) -> Path:
    subprocess.run(["qemu-img", "convert", "-O", fmt, *options, str(source), str(target)], check=True)
    return target


def compare(one: Path, two: Path, strict: bool = False) -> None:
    command = ["qemu-img", "compare", *(["-s"] if strict else []), str(one), str(two)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Count:
    """Progress as an object."""

    size = None

    def __init__(self) -> None:
        self.done = 0

    def __bool__(self) -> bool:
        return False

    def update(self, count: int) -> None:
        self.done += count


# --- Upload ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target"),
    [("raw", "raw"), ("qcow2", "qcow2"), ("compressed", "raw"), ("vmdk", "qcow2"), ("vdi", "raw"), ("vhdx", "qcow2")],
)
def test_upload(served, tmp_path, source, target):
    base = make(tmp_path / "base.qcow2", "qcow2")
    if source == "compressed":
        image = convert(base, tmp_path / "source", "qcow2", "-c")
    else:
        image = convert(base, tmp_path / "source", source)
    disk = make(tmp_path / "disk", target, pattern=False)
    # What was there before must not shine through.
    write(disk, target, f"write -P 9 0 {SIZE}")
    progress = Count()
    with exported(served, disk, target) as url:
        client.upload(str(image), url, served.ca_file, progress=progress, verify=True)
    compare(base, disk)
    assert (progress.size, progress.done) == (SIZE, SIZE)


def test_upload_keeps_holes(served, tmp_path):
    image = convert(make(tmp_path / "base.qcow2", "qcow2"), tmp_path / "source.raw", "raw")
    disk = make(tmp_path / "disk.raw", "raw", pattern=False)
    with exported(served, disk, "raw") as url:
        client.upload(str(image), url, served.ca_file)
    compare(image, disk, strict=True)


def test_upload_empty(served, tmp_path):
    image = make(tmp_path / "source.qcow2", "qcow2", pattern=False)
    disk = make(tmp_path / "disk.raw", "raw", pattern=False)
    write(disk, "raw", f"write -P 9 0 {SIZE}")
    with exported(served, disk, "raw") as url:
        client.upload(str(image), url, served.ca_file)
    compare(image, disk)
    assert disk.stat().st_blocks == 0


def test_upload_to_disk_that_is_zero_zeroes_nothing(plain, tmp_path, monkeypatch):
    # The log tells of each request.
    monkeypatch.setattr(ways, "SMALL", LIMITS["HTTP"])
    image = make(tmp_path / "source.qcow2", "qcow2")
    disk = make(tmp_path / "disk.qcow2", "qcow2", pattern=False)
    counted: list[int] = []
    with exported(plain, disk, "qcow2") as url:
        client.upload(str(image), url, plain.ca_file, disk_is_zero=True, progress=counted.append)
        log = plain.log()
    compare(image, disk)
    assert sum(counted) == SIZE
    assert "WRITE size=" in log
    assert "ZERO size=" not in log


def test_upload_of_a_preallocated_image(served, tmp_path):
    image = tmp_path / "source.raw"
    image.write_bytes(bytes(4 * MiB) + b"a" * MiB + bytes(3 * MiB))
    disk = make(tmp_path / "disk.raw", "raw", pattern=False)
    progress = Count()
    with exported(served, disk, "raw") as url:
        client.upload(str(image), url, served.ca_file, detect_zeroes=True, progress=progress, verify=True)
    compare(image, disk)
    assert progress.done == progress.size == SIZE


def test_upload_layers(served, tmp_path):
    base = make(tmp_path / "base.qcow2", "qcow2")
    top = make(tmp_path / "top.qcow2", "qcow2", pattern=False, backing_file=str(base), backing_format="qcow2")
    write(top, "qcow2", "write -P 7 512k 64k", "write -z 1m 64k")
    disk_base = make(tmp_path / "disk-base.qcow2", "qcow2", pattern=False)
    disk = make(tmp_path / "disk.qcow2", "qcow2", pattern=False, backing_file=str(disk_base), backing_format="qcow2")
    with exported(served, disk_base, "qcow2") as url:
        client.upload(str(base), url, served.ca_file, backing_chain=False)
    with exported(served, disk, "qcow2") as url:
        client.upload(str(top), url, served.ca_file, backing_chain=False)
    compare(top, disk)
    # The layer alone: what is a hole in one is a hole in the other.
    assert holes(top) == holes(disk)


def holes(path: Path) -> list[tuple[int, int]]:
    """Return what a layer does not have, as (start, end)."""
    command = ["qemu-img", "map", "--output=json", str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return list(Ranges((item["start"], item["start"] + item["length"]) for item in found if item["depth"] > 0))


def test_upload_flattens_a_chain(served, tmp_path):
    base = make(tmp_path / "base.raw", "raw")
    top = make(tmp_path / "top.qcow2", "qcow2", pattern=False, backing_file=str(base), backing_format="raw")
    write(top, "qcow2", "write -P 7 512k 64k", "write -z 1m 64k")
    disk = make(tmp_path / "disk.raw", "raw", pattern=False)
    with exported(served, disk, "raw") as url:
        client.upload(str(top), url, served.ca_file)
    compare(top, disk)


@pytest.mark.parametrize("fmt", ["raw", "qcow2", "compressed"])
def test_upload_from_an_archive(served, tmp_path, fmt):
    base = make(tmp_path / "base.qcow2", "qcow2")
    if fmt == "compressed":
        convert(base, tmp_path / "member", "qcow2", "-c")
    else:
        convert(base, tmp_path / "member", fmt)
    (tmp_path / "vm.ovf").write_text("<ovf/>")
    ova = tmp_path / "vm.ova"
    subprocess.run(["tar", "-cf", ova, "-C", tmp_path, "vm.ovf", "member"], check=True)
    disk = make(tmp_path / "disk.raw", "raw", pattern=False)
    with exported(served, disk, "raw") as url:
        client.upload(str(ova), url, served.ca_file, member="member")
    compare(base, disk)
    info = client.info(str(ova), member="member")
    assert info["member-size"] == (tmp_path / "member").stat().st_size
    assert info["virtual-size"] == SIZE


def test_upload_of_what_is_no_image(plain, tmp_path):
    good = make(tmp_path / "good.qcow2", "qcow2")
    disk = make(tmp_path / "disk.raw", "raw", pattern=False)
    corrupt = tmp_path / "corrupt.qcow2"
    data = bytearray(good.read_bytes())
    data[40:48] = b"\xff" * 8  # Where the L1 table is.
    corrupt.write_bytes(data)
    compressed, cut = tmp_path / "good.tar.gz", tmp_path / "cut.tar"
    for path, mode in ((compressed, "w:gz"), (cut, "w:")):
        with tarfile.open(path, mode) as archive:
            archive.add(good, "disk")
    os.truncate(cut, cut.stat().st_size // 2)
    with exported(plain, disk, "raw") as url:
        with pytest.raises(client.StorageError, match="L1 table"):
            client.upload(str(corrupt), url, plain.ca_file)
        with pytest.raises(client.NotAnArchive, match="gzip"):
            client.upload(str(compressed), url, plain.ca_file, member="disk")
        with pytest.raises((client.NotAnArchive, client.MemberNotFound)):
            client.upload(str(cut), url, plain.ca_file, member="disk")
        with pytest.raises(client.InvalidValue, match="a file, or a block device"):
            client.upload(str(tmp_path), url, plain.ca_file)
    assert not disk.read_bytes().strip(b"\0")


def test_upload_to_a_larger_disk_zeroes_its_tail(served, tmp_path):
    image = make(tmp_path / "source.raw", "raw")
    disk = make(tmp_path / "disk.raw", "raw", 2 * SIZE, pattern=False)
    write(disk, "raw", f"write -P 9 0 {2 * SIZE}")
    progress = Count()
    with exported(served, disk, "raw", 2 * SIZE) as url:
        client.upload(str(image), url, served.ca_file, progress=progress, verify=True)
    compare(image, disk)
    assert progress.done == progress.size == 2 * SIZE


def test_upload_to_a_smaller_disk_writes_nothing(served, tmp_path):
    image = make(tmp_path / "source.raw", "raw")
    disk = make(tmp_path / "disk.raw", "raw", SIZE // 2, pattern=False)
    with exported(served, disk, "raw", SIZE // 2) as url, pytest.raises(client.SizeMismatch) as error:
        client.upload(str(image), url, served.ca_file)
    assert (error.value.size, error.value.available) == (SIZE, SIZE // 2)
    assert not any(disk.read_bytes())


def test_upload_to_a_file_that_grows(served, tmp_path):
    image = make(tmp_path / "source.qcow2", "qcow2")
    disk = tmp_path / "disk"
    disk.touch()
    url = served.add_ticket(url=f"file://{disk}", size=SIZE, sparse=True)
    client.upload(str(image), url, served.ca_file, format="raw")
    assert disk.read_bytes()[: image.stat().st_size] == image.read_bytes()


# --- Download -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["raw", "qcow2"])
@pytest.mark.parametrize("target", ["raw", "qcow2", "vmdk"])
def test_download(served, tmp_path, source, target):
    disk = make(tmp_path / "disk", source)
    image = tmp_path / "image"
    progress = Count()
    with exported(served, disk, source, ops=["read"]) as url:
        client.download(url, str(image), served.ca_file, fmt=target, progress=progress, verify=True)
    compare(disk, image)
    assert (progress.size, progress.done) == (SIZE, SIZE)


@pytest.mark.parametrize("workers", [0, 1, 2, 8])
def test_download_with_workers(served, tmp_path, workers):
    disk = make(tmp_path / "disk.raw", "raw")
    image = tmp_path / "image.raw"
    with exported(served, disk, "raw") as url:
        client.download(url, str(image), served.ca_file, fmt="raw", max_workers=workers)
    compare(disk, image, strict=True)


def test_download_is_sparse(served, tmp_path):
    disk = make(tmp_path / "disk.qcow2", "qcow2", 64 * MiB)
    image = tmp_path / "image.raw"
    with exported(served, disk, "qcow2", 64 * MiB) as url:
        client.download(url, str(image), served.ca_file, fmt="raw", progress=lambda count: None)
    compare(disk, image)
    assert image.stat().st_blocks * 512 < 3 * MiB


def test_download_bytes_of_a_file(served, tmp_path):
    disk = make(tmp_path / "disk.qcow2", "qcow2")
    image = tmp_path / "image.qcow2"
    url = served.add_ticket(url=f"file://{disk}", size=disk.stat().st_size)
    client.download(url, str(image), served.ca_file, fmt="raw")
    compare(disk, image, strict=True)


def test_download_layers(served, tmp_path):
    base = make(tmp_path / "base.qcow2", "qcow2")
    top = make(tmp_path / "top.qcow2", "qcow2", pattern=False, backing_file=str(base), backing_format="qcow2")
    write(top, "qcow2", "write -P 7 512k 64k", "write -z 1m 64k")
    copies = [tmp_path / "base-copy.qcow2", tmp_path / "top-copy.qcow2"]
    with exported(served, base, "qcow2") as url:
        client.download(url, str(copies[0]), served.ca_file)
    with exported(served, top, "qcow2", backing_chain=False) as url:
        backing = {"backing_file": str(copies[0]), "backing_format": "qcow2"}
        client.download(url, str(copies[1]), served.ca_file, **backing)
    compare(base, copies[0])
    compare(top, copies[1])
    assert holes(top) == holes(copies[1])


def test_incremental_needs_qcow2(tmp_path):
    with pytest.raises(ValueError, match=r"'raw'.*incremental=True"):
        client.download("https://localhost:1/images/x", str(tmp_path / "image"), None, fmt="raw", incremental=True)


def test_incremental_download(served, tmp_path):
    disk = make(tmp_path / "disk.qcow2", "qcow2")
    full, increment = tmp_path / "full.qcow2", tmp_path / "increment.qcow2"
    with exported(served, disk, "qcow2") as url:
        client.download(url, str(full), served.ca_file)
    subprocess.run(["qemu-img", "bitmap", "--add", str(disk), "checkpoint"], check=True)
    write(disk, "qcow2", "write -P 8 512k 64k", "write -z 1m 64k")
    with exported(served, disk, "qcow2", bitmap="checkpoint", dirty=True) as url:
        progress = Count()
        client.download(url, str(increment), served.ca_file, incremental=True, progress=progress)
        dirty = [extent for extent in client.extents(url, dirty=True, cafile=served.ca_file) if extent.dirty]
        chained = {"backing_file": str(full), "backing_format": "qcow2", "verify": True}
        client.download(url, str(tmp_path / "chained.qcow2"), served.ca_file, incremental=True, **chained)
    assert progress.done == progress.size == SIZE
    assert dirty == [
        client.DirtyExtent(512 * KiB, 64 * KiB, True, False),
        client.DirtyExtent(1 * MiB, 64 * KiB, True, True),
    ]
    subprocess.run(["qemu-img", "rebase", "-u", "-b", str(full), "-F", "qcow2", str(increment)], check=True)
    compare(disk, increment)
    compare(disk, tmp_path / "chained.qcow2")


def test_incremental_of_a_full_backup(served, tmp_path):
    disk = make(tmp_path / "disk.qcow2", "qcow2")
    image = tmp_path / "image.qcow2"
    with exported(served, disk, "qcow2") as url, pytest.raises(client.UnsupportedOperation):
        client.download(url, str(image), served.ca_file, incremental=True)
    assert not image.exists()


def test_download_keeps_what_exists(plain, tmp_path):
    disk = make(tmp_path / "disk.raw", "raw")
    image = tmp_path / "image.raw"
    image.write_bytes(b"precious")
    with exported(plain, disk, "raw") as url:
        with pytest.raises(FileExistsError):
            client.download(url, str(image), plain.ca_file, fmt="raw", overwrite=False)
        assert image.read_bytes() == b"precious"
        client.download(url, str(image), plain.ca_file, fmt="raw")
    compare(disk, image)


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_download_without_space_leaves_nothing(plain, tmp_path, fmt, small_folder):
    disk = make(tmp_path / "disk.raw", "raw", pattern=False)
    write(disk, "raw", f"write -P 1 0 {SIZE}")
    image = small_folder / "image"
    with exported(plain, disk, "raw") as url, pytest.raises(client.NoSpace):
        client.download(url, str(image), plain.ca_file, fmt=fmt)
    assert not image.exists()


@pytest.fixture
def small_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of a file system with 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_upload_without_space_tells_so(plain, tmp_path, small_folder):
    image = make(tmp_path / "source.raw", "raw", pattern=False)
    write(image, "raw", f"write -P 1 0 {SIZE}")
    disk = make(small_folder / "disk.raw", "raw", pattern=False)
    with exported(plain, disk, "raw") as url, pytest.raises(client.ServerError) as error:
        client.upload(str(image), url, plain.ca_file)
    assert error.value.code == 507
    assert "No space" in error.value.message


# --- Looking --------------------------------------------------------------------------------------------------------


def test_checksums_agree(served, tmp_path):
    qcow2 = make(tmp_path / "disk.qcow2", "qcow2")
    raw = convert(qcow2, tmp_path / "disk.raw", "raw")
    local = client.checksum(str(raw))
    assert client.checksum(str(qcow2)) == local
    assert set(local) == {"algorithm", "block_size", "checksum"}
    with exported(served, qcow2, "qcow2") as url:
        assert client.checksum(url, cafile=served.ca_file) == local
        sha1 = client.checksum(str(raw), block_size=MiB, algorithm="sha1")
        assert client.checksum(url, cafile=served.ca_file, block_size=MiB, algorithm="sha1") == sha1


def test_extents_here_and_there_agree(served, tmp_path):
    disk = make(tmp_path / "disk.qcow2", "qcow2")
    with exported(served, disk, "qcow2") as url:
        there = list(client.extents(url, cafile=served.ca_file))
    assert there == list(client.extents(str(disk)))
    assert sum(extent.length for extent in there) == SIZE


def test_extents_of_a_bitmap(tmp_path):
    disk = make(tmp_path / "disk.qcow2", "qcow2")
    subprocess.run(["qemu-img", "bitmap", "--add", str(disk), "one"], check=True)
    write(disk, "qcow2", "write -P 8 512k 64k")
    found = [extent for extent in client.extents(str(disk), bitmap="one") if extent.dirty]
    assert found == [client.DirtyExtent(512 * KiB, 64 * KiB, True, False)]
    with pytest.raises(client.Error, match="two"):
        next(client.extents(str(disk), bitmap="two"))


def test_one_connection(served, tmp_path):
    disk = make(tmp_path / "disk.raw", "raw")
    with exported(served, disk, "raw") as url, client.ImageioClient(url, served.ca_file) as connection:
        assert connection.size() == SIZE
        assert connection.max_readers == connection.max_writers > 1
        connection.write(4096, b"hello")
        buffer = bytearray(8)
        assert connection.read(4094, buffer) == 8
        assert buffer == b"\1\1hello\1"
        connection.zero(0, 8192)
        connection.flush()
        assert next(connection.extents()) == client.ZeroExtent(0, 8192, True, False)


# --- Trust ----------------------------------------------------------------------------------------------------------


def test_wrong_authority_never_means_the_proxy(plain, tmp_path):
    disk = make(tmp_path / "disk.raw", "raw")
    other = certificates.self_signed("stranger").cert_file
    with exported(plain, disk, "raw") as url, exported(plain, disk, "raw") as proxy_url:
        with pytest.raises(client.BackendUnavailable, match="certificate"):
            client.download(url, str(tmp_path / "image"), other, proxy_url=proxy_url)
        client.download(url, str(tmp_path / "image"), other, secure=False)
    compare(disk, tmp_path / "image")


def test_wrong_host_name(plain, tmp_path):
    disk = make(tmp_path / "disk.raw", "raw")
    with exported(plain, disk, "raw") as url:
        wrong = url.replace("localhost", "127.0.0.2")
        with pytest.raises(client.BackendUnavailable):
            client.download(wrong, str(tmp_path / "image"), plain.ca_file)


@pytest.mark.parametrize("address", ["[::1]", "::1", "0:0:0:0:0:0:0:1"])
def test_address_of_ipv6_in_the_url(tmp_path, address):
    """An engine writes it without brackets."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    disk = make(tmp_path / "disk.raw", "raw")
    text = "[local]\nenable = false\n[remote]\nhost = ::1\n"
    with daemon.running(tmp_path, text) as running, exported(running, disk, "raw") as url:
        literal = url.replace("localhost", address)
        client.download(literal, str(tmp_path / "image"), running.ca_file, fmt="raw")
        client.upload(str(tmp_path / "image"), literal, running.ca_file, verify=True)
    compare(disk, tmp_path / "image")


def test_missing_cafile_is_told(plain, tmp_path):
    with pytest.raises(client.InvalidValue, match="cafile"):
        client.download(plain.url("x"), str(tmp_path / "image"), "/no/such/file", proxy_url=plain.url("y"))


def test_unreachable_server_means_the_proxy(plain, tmp_path):
    disk = make(tmp_path / "disk.raw", "raw")
    with exported(plain, disk, "raw") as url:
        client.download("https://localhost:1/images/x", str(tmp_path / "image"), plain.ca_file, proxy_url=url)
        client.download(url, str(tmp_path / "image"), plain.ca_file, proxy_url="https://localhost:1/images/x")
    with pytest.raises(client.BackendUnavailable, match="reached"):
        client.download("https://localhost:1/images/x", str(tmp_path / "image"), plain.ca_file)


def test_refusal_never_means_the_proxy(plain, tmp_path):
    disk = make(tmp_path / "disk.raw", "raw")
    with exported(plain, disk, "raw") as url, pytest.raises(client.ServerError) as error:
        client.download(plain.url("unknown"), str(tmp_path / "image"), plain.ca_file, proxy_url=url)
    assert error.value.code == 403
    assert "No such ticket" in error.value.message
    assert not (tmp_path / "image").exists()


def test_signatures_are_those_that_callers_know():
    def names(function: object) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(client.upload)[:11] == [
        *("filename", "url", "cafile", "buffer_size", "secure", "progress", "proxy_url", "max_workers"),
        *("member", "backing_chain", "disk_is_zero"),
    ]
    assert names(client.download)[:12] == [
        *("url", "filename", "cafile", "fmt", "incremental", "buffer_size", "secure", "progress", "proxy_url"),
        *("max_workers", "backing_file", "backing_format"),
    ]
