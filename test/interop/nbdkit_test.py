"""The NBD client against nbdkit, which can do what qemu does not: fail, be slow, offer less, insist on TLS."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess

import pytest
from fakes.nbdclient import chunk, handshake, request
from fakes.nbdexport import Exporting
from fakes.waiting import DEADLINE
from real import certificates
from real.nbd import nbdinfo, nbdkit, tls_folder, uri

from ovirt_imageio import errors
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.nbd import address
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.errors import ConnectionDead, Refused, RequestFailed, TimedOut
from ovirt_imageio.nbd.wire import Command, Mode

pytestmark = [
    pytest.mark.storage,
    pytest.mark.skipif(not shutil.which("nbdkit") or not shutil.which("nbdinfo"), reason="needs nbdkit and nbdinfo"),
]

KIB = 1024
MIB = 1024 * KIB
SIZE = 4 * MIB


def pattern(offset, length):
    """What nbdkit's pattern plugin holds: each 8 bytes are their own offset."""
    start, end = offset // 8, (offset + length + 7) // 8
    data = struct.pack(f">{end - start}Q", *range(start * 8, end * 8, 8))
    return data[offset % 8 :][:length]


def read(disk, offset, length):
    view = memoryview(bytearray(length))
    disk.read(offset, view)
    return bytes(view)


@contextlib.contextmanager
def opened(*arguments, **options):
    """A backend, on an nbdkit of its own."""
    with nbdkit(*arguments) as path, contextlib.closing(NBDBackend(f"nbd:unix:{path}", **options)) as backend:
        yield backend


@contextlib.contextmanager
def connected(*arguments, **options):
    with nbdkit(*arguments) as path, connect(address.parse(f"nbd:unix:{path}"), **options) as nbd:
        yield nbd


class Sink:
    """A sink that keeps what it gets."""

    socket = None

    def __init__(self):
        self.data = bytearray()

    def write(self, view):
        self.data += view


class Source:
    """A source of given bytes."""

    socket = None

    def __init__(self, data):
        self.left = memoryview(data)

    def readinto(self, view):
        count = min(len(view), len(self.left))
        view[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


@pytest.mark.parametrize(
    "arguments,mode",
    [((), Mode.STRUCTURED), (("--no-sr",), Mode.SIMPLE)],
    ids=["structured", "simple"],
)
def test_pattern(arguments, mode):
    with connected(*arguments, "pattern", str(SIZE)) as nbd:
        assert nbd.export.mode is mode
        assert read(nbd, 0, SIZE) == pattern(0, SIZE)
        assert read(nbd, 12345, 2 * MIB) == pattern(12345, 2 * MIB)


@pytest.mark.parametrize("arguments", [(), ("--no-sr",)], ids=["structured", "simple"])
@pytest.mark.parametrize("filters", ["fua", "noextents", "nozero", "blocksize", "noparallel"])
def test_memory(arguments, filters):
    """Write, zero, flush and read, whatever the server offers."""
    data = pattern(0, 2 * MIB)
    with opened(*arguments, f"--filter={filters}", "memory", str(SIZE), writable=True, sparse=True) as backend:
        backend.receive_from(Source(data), 12345, len(data), lambda count: None)
        backend.zero(20000, 70000)
        backend.flush()
        sink = Sink()
        backend.send_to(sink, 0, SIZE, lambda count: None)
    expected = bytearray(SIZE)
    expected[12345 : 12345 + len(data)] = data
    expected[20000:90000] = bytes(70000)
    assert sink.data == expected


def test_extents():
    with opened("data", "data=@1048576 1 @1114112 2", "size=4M") as backend:
        found = list(backend.extents())
    # The plugin keeps pages of 32 KiB, and the two bytes stand in different ones.
    page = 32 * KIB
    assert found == [
        ZeroExtent(0, MIB, True, False),
        ZeroExtent(MIB, page, False, False),
        ZeroExtent(MIB + page, page, True, False),
        ZeroExtent(MIB + 2 * page, page, False, False),
        ZeroExtent(MIB + 3 * page, SIZE - MIB - 3 * page, True, False),
    ]


def test_server_that_rejects_long_requests():
    arguments = ["--filter=blocksize-policy", "memory", "16M", "blocksize-error-policy=error"]
    sizes = ["blocksize-minimum=1", "blocksize-preferred=4096", "blocksize-maximum=1M"]
    data = pattern(0, 16 * MIB)
    with opened(*arguments, *sizes, writable=True) as backend:
        backend.receive_from(Source(data), 0, len(data), lambda count: None)
        sink = Sink()
        backend.send_to(sink, 0, len(data), lambda count: None)
        assert sink.data == data
        view = memoryview(bytearray(5 * MIB))
        assert backend.readinto(100, view) == len(view)
        backend.write(100, view)


def test_no_extents():
    with opened("--filter=noextents", "memory", str(SIZE)) as backend:
        assert list(backend.extents()) == [ZeroExtent(0, SIZE, False, False)]


@pytest.mark.parametrize("way", ["structured", "simple"])
def test_nbdinfo_tells_the_same(way):
    arguments = ["--no-sr"] if way == "simple" else []
    with nbdkit(*arguments, "--filter=multi-conn", "memory", "3M") as path:
        [theirs] = nbdinfo(uri(path))["exports"]
        with connect(address.parse(uri(path))) as nbd:
            ours = nbd.export
    assert ours.size == theirs["export-size"]
    assert ours.is_read_only == theirs["is_read_only"]
    assert ours.can_flush == theirs["can_flush"]
    assert ours.can_fua == theirs["can_fua"]
    assert ours.can_zero == theirs["can_zero"]
    assert ours.can_multi_conn == theirs["can_multi_conn"]
    if way == "structured":
        assert [*ours.contexts.values()] == theirs["contexts"]
    else:
        # Some versions of nbdinfo list contexts that need structured replies, which this server does not have.
        assert ours.contexts == {}


def test_export_name():
    with nbdkit("--filter=exportname", "memory", "1M", "exportname=sda", "exportname-strict=true") as path:
        with connect(address.parse(f"nbd:unix:{path}:exportname=sda")) as nbd:
            assert nbd.export.size == MIB
        with pytest.raises(Refused, match="the export 'sdb'"):
            connect(address.parse(f"nbd:unix:{path}:exportname=sdb"))


def test_oldstyle():
    with pytest.raises(ConnectionDead, match="old style"), connected("--oldstyle", "memory", "1M"):
        pytest.fail("connected")


@pytest.mark.parametrize("name,kind", [("ENOSPC", errors.NoSpace), ("EIO", errors.StorageError)])
def test_failing_writes(name, kind):
    with opened(
        "--filter=error", "memory", str(SIZE), f"error-pwrite={name}", "error-pwrite-rate=1", writable=True
    ) as backend:
        with pytest.raises(kind):
            backend.receive_from(Source(bytes(SIZE)), 0, SIZE, lambda count: None)
        view = memoryview(bytearray(1000))
        assert backend.readinto(0, view) == 1000


def test_failing_reads():
    """Half of the requests fail: those that do not bring the right bytes."""
    with connected("--filter=error", "pattern", str(SIZE), "error=EIO", "error-pread-rate=0.5") as nbd:
        outcomes = set()
        for offset in range(0, SIZE, 16 * KIB):
            try:
                assert read(nbd, offset, 1000) == pattern(offset, 1000)
                outcomes.add("good")
            except RequestFailed as e:
                assert e.code == 5
                outcomes.add("bad")
        assert outcomes == {"good", "bad"}
        assert nbd.is_alive


def test_slow_server():
    with connected("--filter=delay", "memory", "1M", "delay-read=2", reply_timeout=0.1) as nbd:
        with pytest.raises(TimedOut):
            read(nbd, 0, 10)
        assert not nbd.is_alive


def test_read_only():
    with opened("--readonly", "memory", "1M", writable=True) as backend:
        with pytest.raises(errors.StorageError, match="read-only"):
            backend.write(0, memoryview(b"x"))
        backend.flush()


def test_server_goes_away():
    with nbdkit("memory", "1M") as path:
        nbd = connect(address.parse(f"nbd:unix:{path}"))
    with contextlib.closing(nbd), pytest.raises(ConnectionDead):
        read(nbd, 0, 10)


# TLS


def test_tls():
    with tls_folder() as folder, nbdkit("--tls=require", f"--tls-certificates={folder}", "pattern", str(SIZE)) as path:
        with connect(address.parse(f"nbds+unix:///?socket={path}&tls-certificates={folder}")) as nbd:
            assert not nbd.can_splice
            assert read(nbd, 0, SIZE) == pattern(0, SIZE)
        ca_file = certificates.certificate().ca_file
        with contextlib.closing(NBDBackend(f"nbds+unix:///?socket={path}", ca_file=ca_file)) as backend:
            sink = Sink()
            backend.send_to(sink, 100, 2 * MIB, lambda count: None)
            assert sink.data == pattern(100, 2 * MIB)


def test_tls_upload():
    data = pattern(0, 2 * MIB)
    with tls_folder() as folder, nbdkit("--tls=require", f"--tls-certificates={folder}", "memory", str(SIZE)) as path:
        url = f"nbds+unix:///?socket={path}&tls-certificates={folder}&tls-hostname=localhost"
        with contextlib.closing(NBDBackend(url, writable=True)) as backend:
            backend.receive_from(Source(data), 5, len(data), lambda count: None)
            view = memoryview(bytearray(len(data)))
            backend.readinto(5, view)
            assert view == data


def test_tls_client_certificate():
    with tls_folder(client=certificates.certificate("client")) as folder, contextlib.ExitStack() as stack:
        server = ["--tls=require", f"--tls-certificates={folder}", "--tls-verify-peer"]
        path = stack.enter_context(nbdkit(*server, "memory", "1M"))
        with connect(address.parse(f"nbds+unix:///?socket={path}&tls-certificates={folder}")) as nbd:
            assert read(nbd, 0, 10) == bytes(10)
        ca_file = certificates.certificate().ca_file
        with (
            pytest.raises(ConnectionDead),
            connect(address.parse(f"nbds+unix:///?socket={path}"), ca_file=ca_file),
        ):
            pytest.fail("connected without a certificate")


def test_tls_is_required():
    with tls_folder() as folder, nbdkit("--tls=require", f"--tls-certificates={folder}", "memory", "1M") as path:
        location = address.parse(f"nbd:unix:{path}")
        with pytest.raises(Refused, match="nbds://"):
            connect(location)


def test_tls_is_not_offered():
    with nbdkit("--tls=off", "memory", "1M") as path, pytest.raises(Refused, match="TLS"):
        connect(address.parse(f"nbds+unix:///?socket={path}"))


@pytest.mark.parametrize("query", ["", "&tls-certificates=FOLDER&tls-hostname=other.example"])
def test_tls_server_that_is_not_trusted(query):
    """Neither an unknown authority nor another name will do."""
    with tls_folder() as folder, nbdkit("--tls=require", f"--tls-certificates={folder}", "memory", "1M") as path:
        location = address.parse(f"nbds+unix:///?socket={path}{query.replace('FOLDER', folder)}")
        with pytest.raises(ConnectionDead, match="certificate verify failed"):
            connect(location)


# Other clients


def test_nbdcopy_copies_what_we_wrote(tmp_path):
    data = pattern(0, SIZE)
    with nbdkit("memory", str(SIZE)) as path:
        backend = NBDBackend(f"nbd:unix:{path}", writable=True)
        with contextlib.closing(backend):
            backend.receive_from(Source(data), 0, SIZE, lambda count: None)
        subprocess.run(["nbdcopy", uri(path), str(tmp_path / "copy")], check=True, timeout=DEADLINE)
    assert (tmp_path / "copy").read_bytes() == data


def test_an_attached_client_of_a_server_that_offers_less():
    """What was offered to the client is done, if not by the server then by us."""
    with (
        nbdkit("--filter=nozero", "memory", "1M") as path,
        Exporting(lambda: NBDBackend(f"nbd:unix:{path}", writable=True), can_extend=False) as exporting,
        exporting.connect() as sock,
    ):
        handshake(sock)
        sock.sendall(request(Command.WRITE_ZEROES, 1, 0, 512))
        assert chunk(sock) == (1, 0, 1, b"")
