"""Our NBD server: every promise of a backend through it, real clients, and clients that misbehave."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from backends.contract import Contract, Disk
from fakes.nbdclient import DISK, chunk, fails, handshake, receive, request
from fakes.nbdexport import CONTEXTS, FLAGS, Exporting
from fakes.nbdpeer import Call, Peer
from fakes.scripts import load
from fakes.waiting import DEADLINE, wait_until
from real.nbd import run, uri

from ovirt_imageio import errors
from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.nbd import export, status
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.errors import ClientFault, ConnectionDead, RequestFailed, TimedOut
from ovirt_imageio.nbd.wire import ALLOCATION_DEPTH, Command, ExportFlag, Mode

KIB = 1024
MIB = 1024 * KIB


class ExportedDisk(Disk):
    """A disk in memory behind our NBD server."""

    def __init__(self, can_extend: bool) -> None:
        self._data = bytearray()
        self._exporting = Exporting(lambda: MemoryBackend(self._data), can_extend=can_extend)
        self._exporting.__enter__()

    def open(self, *, writable: bool = True, sparse: bool = False) -> NBDBackend:
        return NBDBackend(f"nbd:unix:{self._exporting.path}", writable=writable, sparse=sparse)

    def content(self) -> bytes:
        return bytes(self._data)

    def fill(self, data: bytes) -> None:
        self._data[:] = data

    def stop(self) -> None:
        self._exporting.__exit__(None, None, None)
        assert all(isinstance(failure, ClientFault) for failure in self._exporting.failures)


class TestExport(Contract):
    @pytest.fixture(params=[False, True], ids=["structured", "extended"])
    def disk(self, request) -> Iterator[ExportedDisk]:
        disk = ExportedDisk(request.param)
        yield disk
        disk.stop()


# --- What the contract does not ask for ------------------------------------------------------------------------------


@pytest.fixture
def data() -> bytearray:
    return bytearray(random.Random(1).randbytes(4 * MIB))


@pytest.fixture
def exporting(data) -> Iterator[Exporting]:
    with Exporting(lambda: MemoryBackend(data)) as exporting:
        yield exporting


def test_watch_is_told_of_each_request(exporting):
    with connect(exporting.location) as nbd:
        nbd.read(100, memoryview(bytearray(10)))
        nbd.write(MIB, memoryview(bytes(MIB)))
        nbd.zero(0, 2 * MIB)
        nbd.flush()
        nbd.block_status(0, MIB)
    assert exporting.watch.begun == [
        (Command.READ, 100, 10),
        (Command.WRITE, MIB, MIB),
        (Command.WRITE_ZEROES, 0, 2 * MIB),
        (Command.FLUSH, 0, 0),
        (Command.BLOCK_STATUS, 0, MIB),
    ]
    assert sum(exporting.watch.counts) == 10 + MIB + 2 * MIB
    assert exporting.watch.errors == [None] * 5


class Failing(MemoryBackend):
    """A disk that fails."""

    error: errors.Error = errors.NoSpace("write", "it is full", 28)

    def write(self, offset: int, view: memoryview) -> None:
        raise self.error

    def zero(self, offset: int, length: int) -> None:
        raise self.error

    def flush(self) -> None:
        raise errors.StorageError("flush", "it is broken", 5)

    def readinto(self, offset: int, view: memoryview) -> int:
        if offset >= MIB:
            raise errors.StorageError("read", "a bad sector", 5)
        return super().readinto(offset, view)


@pytest.mark.parametrize("can_extend", [False, True])
def test_errors_of_the_disk(data, can_extend):
    with (
        Exporting(lambda: Failing(data), can_extend=can_extend) as exporting,
        connect(exporting.location) as nbd,
    ):
        for length in (512, MIB):
            with pytest.raises(RequestFailed, match="it is full") as failure:
                nbd.write(0, memoryview(bytes(length)))
            assert failure.value.code == 28
        with pytest.raises(RequestFailed, match="it is full"):
            nbd.zero(0, 512)
        with pytest.raises(RequestFailed, match="it is broken") as failure:
            nbd.flush()
        assert failure.value.code == 5
        # Also in the middle of a long read: what came before it is good.
        for offset, length in ((MIB, 512), (MIB // 2, MIB)):
            with pytest.raises(RequestFailed, match="a bad sector"):
                nbd.read(offset, memoryview(bytearray(length)))
        # The connection is as good as before.
        view = memoryview(bytearray(MIB))
        nbd.read(0, view)
        assert view == data[:MIB]


def test_write_at_once_flushes(data):
    class Counting(MemoryBackend):
        flushes = 0

        def flush(self) -> None:
            Counting.flushes += 1

    with Exporting(lambda: Counting(data)) as exporting, connect(exporting.location) as nbd:
        nbd.write(0, memoryview(b"x" * 512), fua=True)
        assert Counting.flushes == 1
        nbd.write(0, memoryview(b"x" * 512))
        assert Counting.flushes == 1


def test_zeroes_keep_their_space_where_the_client_asks_for_that(data):
    class Sparse(MemoryBackend):
        allocated: ClassVar[list[tuple[int, int]]] = []

        def zero_allocated(self, offset: int, length: int) -> None:
            self.allocated.append((offset, length))

    with Exporting(lambda: Sparse(data)) as exporting, connect(exporting.location) as nbd:
        nbd.zero(0, 512)
        nbd.zero(512, 1024, punch_hole=False)
        assert Sparse.allocated == [(512, 1024)]
        assert data[:512] == bytes(512) and any(data[512:1024])


EXTENTS = {
    "zero": [
        ZeroExtent(0, MIB, False, False),
        ZeroExtent(MIB, MIB, True, False),
        ZeroExtent(2 * MIB, 2 * MIB, True, True),
    ],
    "dirty": [DirtyExtent(0, MIB, True, False), DirtyExtent(MIB, 3 * MIB, False, False)],
}
BITMAP = "qemu:dirty-bitmap:changed"


@pytest.mark.parametrize("can_extend", [False, True])
def test_extents(data, can_extend):
    contexts = (*CONTEXTS, ALLOCATION_DEPTH, BITMAP)
    with (
        Exporting(lambda: MemoryBackend(data, extents=EXTENTS), contexts=contexts, can_extend=can_extend) as exporting,
        connect(exporting.location, dirty=True) as nbd,
    ):
        assert nbd.export.bitmaps == [BITMAP]
        found = list(status.dirty_extents(nbd, 512, 2 * MIB, BITMAP))
        assert [(e.start, e.length, e.dirty) for e in found] == [(512, MIB - 512, True), (MIB, MIB + 512, False)]
        place = next(number for number, name in nbd.export.contexts.items() if name == "base:allocation")
        packed = nbd.block_status(0, 4 * MIB)[place]
        assert list(status.decode(nbd.export, packed)) == [(MIB, 0), (MIB, 2), (2 * MIB, 3)]
        assert list(status.zero_extents(nbd, 0, 4 * MIB)) == EXTENTS["zero"]


def test_a_million_extents_come_in_parts(data):
    every_other = [ZeroExtent(i * 512, 512, bool(i % 2), False) for i in range(len(data) // 512)]
    with (
        Exporting(lambda: MemoryBackend(data, extents={"zero": every_other})) as exporting,
        connect(exporting.location) as nbd,
    ):
        assert len(every_other) > export.MAX_EXTENTS
        assert [e.start for e in status.zero_extents(nbd, 0, len(data))] == [e.start for e in every_other]


# --- Real clients ----------------------------------------------------------------------------------------------------


def faults(exporting: Exporting) -> list[Exception]:
    """Return the failures but those of clients that did not wait for the last answer."""
    return [failure for failure in exporting.failures if not isinstance(failure, ConnectionError)]


@pytest.mark.storage
def test_nbdinfo(exporting):
    (found,) = json.loads(run(["nbdinfo", "--json", uri(exporting.path)]))["exports"]
    assert found["export-size"] == 4 * MIB
    assert found["contexts"] == ["base:allocation"]
    assert (found["block_size_minimum"], found["block_size_maximum"]) == (1, 32 * MIB)
    assert found["can_multi_conn"] and found["can_fua"] and found["can_zero"] and not found["is_read_only"]
    listed = json.loads(run(["nbdinfo", "--json", "--list", uri(exporting.path)]))["exports"]
    assert [each["export-name"] for each in listed] == [""]
    assert not faults(exporting)


@pytest.mark.storage
@pytest.mark.parametrize("connections,requests", [(1, 1), (1, 64), (4, 16)])
def test_nbdcopy(tmp_path, exporting, data, connections, requests):
    options = [f"--connections={connections}", f"--requests={requests}"]
    there, back = tmp_path / "there", tmp_path / "back"
    run(["nbdcopy", *options, uri(exporting.path), there])
    assert there.read_bytes() == data
    back.write_bytes(random.Random(2).randbytes(4 * MIB))
    run(["nbdcopy", *options, "--flush", back, uri(exporting.path)])
    assert data == back.read_bytes()
    assert not faults(exporting)


@pytest.mark.storage
def test_qemu(tmp_path, exporting, data):
    url = f"nbd+unix:///?socket={exporting.path}"
    image = tmp_path / "image.qcow2"
    assert json.loads(run(["qemu-img", "info", "--output=json", url]))["virtual-size"] == 4 * MIB
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", url, image])
    assert run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", url, image]).startswith("Images are identical")
    # qemu-io checks the patterns that it reads.
    commands = ["write -P 7 4096 100k", "write -z 1M 64k", "read -P 7 4096 100k", "read -P 0 1M 64k", "flush"]
    done = run(["qemu-io", "-f", "raw", url, *(word for command in commands for word in ("-c", command))])
    assert "failed" not in done
    assert data[4096 : 4096 + 100 * KIB] == b"\7" * 100 * KIB
    assert not faults(exporting)


def test_an_old_client(exporting, data):
    with exporting.connect() as sock:
        handshake(sock, old_style=True)
        sock.sendall(request(Command.READ, 3, 0, MIB))
        assert receive(sock, 16) == struct.pack(">IIQ", 0x67446698, 0, 3)
        assert receive(sock, MIB) == data[:MIB]


# --- Clients that misbehave ------------------------------------------------------------------------------------------

HOSTILE = sorted(Path(__file__).parent.joinpath("hostile_clients").glob("*.py"))
SERVERS = sorted(Path(__file__).parent.joinpath("hostile").glob("*.py"))


@contextlib.contextmanager
def attacked(is_passed: bool, disk: bytearray, flags: ExportFlag, timeout: float) -> Iterator[Exporting]:
    """Serve a disk ourselves, or stand before a server that does."""
    is_writable = ExportFlag.READ_ONLY not in flags
    options = {"flags": flags, "can_extend": False}
    with contextlib.ExitStack() as scope:
        server = scope.enter_context(
            Exporting(
                lambda: MemoryBackend(disk, writable=is_writable), **options, timeout=DEADLINE if is_passed else timeout
            )
        )
        if is_passed:
            url = f"nbd:unix:{server.path}"
            server = scope.enter_context(
                Exporting(lambda: NBDBackend(url, writable=is_writable), **options, timeout=timeout)
            )
        yield server


@pytest.mark.parametrize("is_passed", [False, True], ids=["server", "gate"])
@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_hostile_client(path, is_passed):
    """Any way to misbehave is answered with an error, or ends the connection, and changes nothing of the disk."""
    hostile = load(path)
    flags = ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY if getattr(hostile, "IS_READ_ONLY", False) else FLAGS
    fault = getattr(hostile, "FAULT", None)
    disk = bytearray(DISK)
    with (
        attacked(is_passed, disk, flags, getattr(hostile, "TIMEOUT", DEADLINE)) as exporting,
        exporting.connect() as sock,
    ):
        hostile.script(sock)
        if fault is None:
            # The connection is as good as before.
            sock.sendall(request(Command.READ, 2**63, 512, 512))
            assert chunk(sock) == (1, 1, 2**63, struct.pack(">Q", 512) + DISK[512:1024])
        else:
            assert has_ended(sock)
            wait_until(lambda: bool(exporting.failures) or not fault, "the failure")
        assert disk == DISK
        failures = [str(failure) for failure in exporting.failures]
    assert not failures if not fault else re.search(fault, failures[0])


def has_ended(sock: socket.socket) -> bool:
    """Return True if the server closes the connection, whatever it said before; bytes of ours may reset it."""
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(MIB):
            pass
    return True


@pytest.mark.parametrize("path", SERVERS, ids=lambda path: path.stem)
def test_hostile_server_before_which_we_stand(path):
    """The client is cut, or passed on what it sees through by itself: it never takes it for an answer."""
    hostile = load(path)
    calls: list[Call] = []

    def script(call: Call) -> None:
        calls.append(call)
        if len(calls) > 1:
            return hostile.script(call)
        # That of the backend, which is none of the client's.
        call.negotiate()
        call.wait_for_hangup()

    timeout = 0.2 if hostile.EXPECTED is TimedOut else DEADLINE

    def open_backend() -> NBDBackend:
        return NBDBackend(f"nbd:{peer.location.address}", connect_timeout=timeout, reply_timeout=timeout)

    with (
        Peer(script) as peer,
        Exporting(open_backend, can_extend=False) as exporting,
        pytest.raises((ConnectionDead, RequestFailed)),
        connect(exporting.location) as nbd,
    ):
        nbd.read(4196, memoryview(bytearray(1000)))
        list(status.zero_extents(nbd, 4196, 1000))
        nbd.flush()


def test_hostile_peers_are_found():
    assert len(HOSTILE) >= 20
    assert len(SERVERS) >= 30


FLOODS = {
    "reads": lambda cookie: request(Command.READ, cookie, 0, MIB),
    "refused": lambda cookie: request(Command.READ, cookie, 2**40, 512),
    "writes": lambda cookie: request(Command.WRITE, cookie, 0, 64 * KIB, bytes(64 * KIB)),
}


@pytest.mark.parametrize("is_passed", [False, True], ids=["server", "gate"])
@pytest.mark.parametrize("name", FLOODS)
def test_memory_is_bounded(name, is_passed):
    """A client that reads no reply makes us keep no more than 16 MiB, however much it sends."""
    make = FLOODS[name]
    with attacked(is_passed, bytearray(DISK), FLAGS, DEADLINE) as exporting, exporting.connect() as sock:
        handshake(sock)
        tracemalloc.start()
        try:
            # A reply of 1 MiB that is not read stops all others.
            sock.sendall(request(Command.READ, 2**40, 0, MIB))
            sock.settimeout(0.5)
            with pytest.raises(socket.timeout):
                for number in range(64 * MIB):
                    sock.sendall(make(number))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * MIB


@pytest.mark.parametrize("cut", [1, 17, 27, 28, 100])
def test_a_client_that_leaves_amid_a_request(exporting, data, cut):
    before = bytes(data)
    with exporting.connect() as sock:
        handshake(sock)
        sock.sendall(request(Command.WRITE, 1, 0, 512, b"x" * 512)[:cut])
        sock.shutdown(socket.SHUT_WR)
        assert has_ended(sock)
    wait_until(lambda: bool(exporting.failures), "the failure")
    assert isinstance(exporting.failures[0], ClientFault)
    assert data == before


@pytest.mark.parametrize("length", [4, MIB])
def test_payload_of_a_refused_write_is_dropped(exporting, data, length):
    before = bytes(data)
    with exporting.connect() as sock:
        handshake(sock)
        sock.sendall(request(Command.WRITE, 7, 4 * MIB, length, bytes(length)) + request(Command.READ, 8, 0, 512))
        assert fails(sock, 7) == 28
        assert chunk(sock) == (1, 1, 8, bytes(8) + before[:512])
    assert data == before


def test_a_file_is_exported(tmp_path: Path):
    path = tmp_path / "disk"
    path.write_bytes(b"a" * MIB)
    with (
        Exporting(lambda: FileBackend(str(path), writable=True)) as exporting,
        connect(exporting.location) as nbd,
    ):
        assert nbd.export.mode is Mode.EXTENDED
        nbd.write(4096, memoryview(b"b" * 4096))
        nbd.flush()
        view = memoryview(bytearray(MIB))
        nbd.read(0, view)
        assert view == path.read_bytes() == b"a" * 4096 + b"b" * 4096 + b"a" * (MIB - 8192)
