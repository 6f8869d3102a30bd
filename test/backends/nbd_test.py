"""The nbd backend keeps the promises of every backend, on real qemu-nbd servers and on servers that misbehave."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends.contract import Bytes, Contract, Disk
from fakes.nbdpeer import FLAGS, Peer
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio import errors
from ovirt_imageio.backends import nbd
from ovirt_imageio.backends.base import Options, Terms
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.nbd.wire import Command, ExportFlag
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.qemu.nbd import QemuNbd


class NBDDisk(Disk):
    """A raw file behind qemu-nbd, which serves it as it finds it when the first backend is opened."""

    granularity = 512

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server = QemuNbd(str(path), "raw", cache="writeback", aio="threads")
        self._is_running = False

    def open(self, *, writable: bool = True, sparse: bool = False) -> NBDBackend:
        if not self._is_running:
            self._server.start()
            self._is_running = True
        return NBDBackend(self._server.url, writable=writable, sparse=sparse)

    def content(self) -> bytes:
        return self._path.read_bytes()

    def fill(self, data: bytes) -> None:
        self._path.write_bytes(data)

    def stop(self) -> None:
        self._server.stop()


@pytest.mark.storage
class TestNBD(Contract):
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[NBDDisk]:
        disk = NBDDisk(tmp_path / "disk")
        yield disk
        disk.stop()


# What the contract does not ask for, on servers that do as they are told


class Collector:
    """A sink that keeps what it gets."""

    socket = None

    def __init__(self):
        self.data = bytearray()

    def write(self, view):
        self.data += view


def serving(disk, **options):
    """A script: a good server of a disk in memory."""

    def script(call):
        call.negotiate(size=len(disk), **options)
        call.serve(disk)

    return script


@contextlib.contextmanager
def opened(script, **options):
    with Peer(script) as peer, contextlib.closing(NBDBackend(peer.url, **options)) as backend:
        yield backend


def failing(code, message=b""):
    """A script: a server that refuses all requests."""

    def script(call):
        call.negotiate()
        while True:
            call.error(call.request(), code, message)

    return script


def read(backend, offset=0, length=10):
    view = memoryview(bytearray(length))
    return bytes(view[: backend.readinto(offset, view)])


def test_open_with_options():
    options = Options(max_connections=5, nbd_connect_timeout=7, nbd_reply_timeout=9)
    with Peer(serving(bytearray(1000))) as peer:
        backend = nbd.open_backend(peer.url, Terms(options, writable=True, sparse=True))
        with contextlib.closing(backend):
            assert backend.size() == 1000
            assert (backend.max_readers, backend.max_writers) == (5, 5)


def test_one_writer_where_a_flush_covers_one_connection():
    with opened(serving(bytearray(1000), flags=FLAGS & ~ExportFlag.CAN_MULTI_CONN)) as backend:
        assert (backend.max_readers, backend.max_writers) == (8, 1)


def test_check_url():
    nbd.check_url("nbd:unix:/path")
    with pytest.raises(errors.InvalidValue):
        nbd.check_url("nbd:unix:path")


def test_cannot_connect(tmp_path):
    path = str(tmp_path / "secret")
    with pytest.raises(errors.StorageError) as e:
        NBDBackend(f"nbd:unix:{path}")
    assert "secret" not in str(e.value)


def test_silent_server():
    with Peer(lambda call: call.wait_for_hangup()) as peer, pytest.raises(errors.BackendTimeout):
        NBDBackend(peer.url, connect_timeout=0.05)


@pytest.mark.parametrize("code,kind", [(28, errors.NoSpace), (5, errors.StorageError), (22, errors.StorageError)])
@pytest.mark.parametrize(
    "operation,use",
    [
        ("read", read),
        ("write", lambda backend: backend.write(0, memoryview(b"x"))),
        ("zero", lambda backend: backend.zero(0, 10)),
        ("flush", lambda backend: backend.flush()),
        ("list the extents", lambda backend: list(backend.extents())),
        ("read", lambda backend: backend.send_to(Collector(), 0, 100_000, lambda count: None)),
    ],
)
def test_failed_request(operation, use, code, kind):
    with opened(failing(code, b"because"), writable=True) as backend:
        for _ in range(2):
            with pytest.raises(kind) as e:
                use(backend)
            assert type(e.value) is kind
            assert e.value.operation == operation
            assert "because" in e.value.reason


def test_several_calls_after_one_another():
    """A failure on one connection is no failure of the next one."""
    disk = bytearray(b"x" * 1000)
    turns = itertools.count()

    def script(call):
        call.negotiate(size=len(disk))
        if next(turns) % 2 == 0:
            call.request()
            call.hang_up()
        else:
            request = call.request()
            call.data(request, request.offset, disk[request.offset : request.offset + request.length], done=True)
            call.wait_for_hangup()

    with opened(script) as backend:
        with pytest.raises(errors.StorageError):
            read(backend)
        assert read(backend) == b"x" * 10


def test_the_server_is_gone_for_a_while():
    with Peer(serving(bytearray(1000))) as peer:
        backend = NBDBackend(peer.url)
    with contextlib.closing(backend):
        for _ in range(2):
            with pytest.raises(errors.StorageError):
                read(backend)


def breaking(disk):
    """A script: each connection breaks at its second request, or at the first read."""

    def script(call):
        call.negotiate(size=len(disk))
        request = call.request()
        if request.kind != Command.READ:
            call.done(request)
            call.request()
        call.hang_up()

    return script


def test_lost_writes_fail_the_next_flush():
    """What was written to a connection that broke may not be on the disk: the client must hear of it."""
    with opened(breaking(bytearray(1000)), writable=True) as backend:
        backend.write(0, memoryview(b"x"))
        with pytest.raises(errors.StorageError):
            read(backend)
        for _ in range(2):
            with pytest.raises(errors.StorageError, match="write again what was written"):
                backend.flush()


def test_flush_that_the_storage_fails():
    def script(call):
        call.negotiate()
        call.done(call.request())
        call.error(call.request(), 5, b"the disk is gone")
        call.wait_for_hangup()

    with opened(script, writable=True) as backend:
        backend.write(0, memoryview(b"x"))
        with pytest.raises(errors.StorageError, match="the disk is gone"):
            backend.flush()


def test_flushed_writes_are_not_lost():
    def script(call):
        call.negotiate()
        for _ in range(2):
            call.done(call.request())
        call.request()
        call.hang_up()

    with opened(script, writable=True) as backend:
        for _ in range(2):
            backend.write(0, memoryview(b"x"))
            backend.flush()
            with pytest.raises(errors.StorageError):
                read(backend)


def test_the_server_was_restarted():
    """A connection that was closed while it was idle is made again, and its user does not notice."""
    hung_up = threading.Event()

    def script(call):
        call.negotiate()
        request = call.request()
        call.hole(request, request.offset, request.length, done=True)
        call.hang_up()
        hung_up.set()

    with opened(script) as backend:
        for _ in range(3):
            assert read(backend) == bytes(10)
            assert hung_up.wait(DEADLINE)
            hung_up.clear()


def test_the_server_was_restarted_amid_writes():
    hung_up = threading.Event()

    def script(call):
        call.negotiate()
        call.done(call.request())
        call.hang_up()
        hung_up.set()

    with opened(script, writable=True) as backend:
        backend.write(0, memoryview(b"x"))
        assert hung_up.wait(DEADLINE)
        with pytest.raises(errors.StorageError, match="write again what was written"):
            backend.flush()


def test_read_only_export():
    with opened(serving(bytearray(1000), flags=FLAGS | ExportFlag.READ_ONLY), writable=True) as backend:
        with pytest.raises(errors.StorageError, match="the export is read-only"):
            backend.write(0, memoryview(b"x"))
        backend.flush()
        assert read(backend) == bytes(10)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_zeroes_that_are_allocated(is_sparse):
    flags = []

    def script(call):
        call.negotiate(size=1000)
        for _ in range(2):
            request = call.request()
            flags.append(request.flags)
            call.done(request)

    with opened(script, writable=True, sparse=is_sparse) as backend:
        backend.zero(0, 1000)
        backend.zero_allocated(0, 1000)
    # NBD_CMD_FLAG_NO_HOLE
    assert flags == [0 if is_sparse else 2, 2]


@pytest.mark.parametrize("offset,length", [(1000, 1), (999, 2), (0, 1001)])
def test_out_of_bounds(offset, length):
    with opened(serving(bytearray(1000)), writable=True) as backend:
        for use in (
            lambda: backend.write(offset, memoryview(bytes(length))),
            lambda: backend.zero(offset, length),
            lambda: backend.receive_from(Bytes(bytes(length)), offset, length, lambda count: None),
        ):
            with pytest.raises(errors.RangeNotSatisfiable):
                use()


def test_dirty_extents():
    contexts = ["base:allocation", "qemu:dirty-bitmap:backup"]

    def script(call):
        call.negotiate(size=1000, contexts=contexts)
        request = call.request()
        call.status(request, [(400, 0), (600, 3)], 0, done=False)
        call.status(request, [(200, 1), (800, 0)], 1)

    with opened(script, dirty=True) as backend:
        assert list(backend.extents("dirty")) == [
            DirtyExtent(0, 200, True, False),
            DirtyExtent(200, 200, False, False),
            DirtyExtent(400, 600, False, True),
        ]


def test_extents_break():
    """An error in the middle of a list is an error of the storage, too."""

    def script(call):
        call.negotiate(size=1000)
        call.status(call.request(), [(400, 0), (10, 3)])
        call.request()
        call.hang_up()

    with opened(script) as backend:
        found = backend.extents()
        assert next(found) == ZeroExtent(0, 400, False, False)
        with pytest.raises(errors.StorageError):
            list(found)


# A server that insists on its blocks

BLOCK = 4096


class BlockServer:
    """A disk of whole blocks but for its last one, which refuses requests that are not aligned."""

    def __init__(self, size):
        self.disk = bytearray(os.urandom(size))
        self.before = bytes(self.disk)

    def script(self, call):
        call.negotiate(size=len(self.disk), blocks=(BLOCK, BLOCK, 1024 * 1024))
        while True:
            request = call.request()
            end = request.offset + request.length
            if request.offset % BLOCK or (end % BLOCK and end < len(self.disk)):
                call.error(request, 22, b"not aligned")
            elif request.kind == Command.READ:
                call.data(request, request.offset, self.disk[request.offset : end], done=True)
            elif request.kind == Command.BLOCK_STATUS:
                call.status(request, [(request.length, 0)])
            else:
                if request.kind != Command.FLUSH:
                    self.disk[request.offset : end] = request.payload or bytes(request.length)
                call.done(request)


UNALIGNED = [(0, 1), (1, 4095), (4095, 2), (4096, 4096), (100, 20000), (40950, 50), (40960, 40), (0, 41000)]


@pytest.mark.parametrize("offset,length", UNALIGNED)
def test_blocks(offset, length):
    server = BlockServer(41000)
    new = os.urandom(length)
    with opened(server.script, writable=True) as backend:
        assert backend.block_size == BLOCK
        assert read(backend, offset, length) == server.before[offset : offset + length]
        sink = Collector()
        backend.send_to(sink, offset, length, lambda count: None)
        assert sink.data == server.before[offset : offset + length]
        assert sum(extent.length for extent in backend.extents("zero", offset, length)) == length
        backend.write(offset, memoryview(new))
        assert server.disk == server.before[:offset] + new + server.before[offset + length :]
        backend.zero(offset, length)
        assert server.disk == server.before[:offset] + bytes(length) + server.before[offset + length :]
        backend.receive_from(Bytes(new), offset, length, lambda count: None)
        assert server.disk == server.before[:offset] + new + server.before[offset + length :]


@pytest.mark.parametrize("was_connected", [False, True], ids=["opening", "connecting again"])
def test_interrupt_while_the_server_hangs(was_connected):
    """No other thread has a backend that is being opened, but the one that wants it opened has its line."""
    line = Lifeline()
    turns = itertools.count(1 - was_connected)
    is_waiting = threading.Event()

    def script(call):
        if next(turns) == 0:
            call.negotiate()
            return
        call.greet()
        is_waiting.set()
        call.wait_for_hangup()

    with Peer(script) as peer, contextlib.ExitStack() as stack:
        backend = None
        if was_connected:
            backend = stack.enter_context(contextlib.closing(NBDBackend(peer.url, line=line)))
            # Else the first request would only learn that the server is gone.
            wait_until(lambda: not backend._connection.client.probe())
        cut = line.cut if backend is None else backend.interrupt
        thread = threading.Thread(target=lambda: is_waiting.wait(DEADLINE) and cut())
        thread.start()
        with pytest.raises(errors.StorageError):
            NBDBackend(peer.url, line=line) if backend is None else read(backend)
        thread.join(DEADLINE)
        assert is_waiting.is_set()
        if backend is not None:
            with pytest.raises(errors.StorageError, match="not wanted any more"):
                read(backend)


def test_interrupt():
    is_waiting = threading.Event()

    def script(call):
        call.negotiate()
        call.request()
        is_waiting.set()
        call.wait_for_hangup()

    with opened(script) as backend:
        thread = threading.Thread(target=lambda: is_waiting.wait() and backend.interrupt())
        thread.start()
        with pytest.raises(errors.StorageError):
            read(backend)
        thread.join()
    backend.interrupt()
