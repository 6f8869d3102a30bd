"""Bytes pass between a client and a server: every promise of a backend holds, and neither can break the other."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends.contract import Contract, Disk
from fakes.nbdclient import chunk, fails, handshake, receive, request
from fakes.nbdexport import Exporting
from fakes.nbdpeer import Call, Peer
from fakes.waiting import DEADLINE, wait_until
from real.nbd import run, uri

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.nbd import gate, status, wire
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.errors import ClientFault
from ovirt_imageio.nbd.wire import ALLOCATION_DEPTH, BASE_ALLOCATION, DIRTY_BITMAP, Command, Mode
from ovirt_imageio.qemu.nbd import QemuNbd

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture(autouse=True)
def passing(monkeypatch):
    """Fail the test in which no bytes passed: it would say nothing about the gate."""
    passed = []
    real = gate.Gate.run

    def counted(self: gate.Gate) -> None:
        passed.append(self)
        real(self)

    monkeypatch.setattr(gate.Gate, "run", counted)
    yield
    assert passed


class PassedDisk(Disk):
    """A disk in memory behind our NBD server, behind a gate."""

    def __init__(self, can_extend: bool) -> None:
        self._data = bytearray()
        self._scope = contextlib.ExitStack()
        self._there = self._scope.enter_context(
            Exporting(lambda: MemoryBackend(self._data), can_extend=can_extend),
        )
        self._here = self._scope.enter_context(
            Exporting(lambda: NBDBackend(f"nbd:unix:{self._there.path}", writable=True), can_extend=can_extend)
        )

    def open(self, *, writable: bool = True, sparse: bool = False) -> NBDBackend:
        return NBDBackend(f"nbd:unix:{self._here.path}", writable=writable, sparse=sparse)

    def content(self) -> bytes:
        return bytes(self._data)

    def fill(self, data: bytes) -> None:
        self._data[:] = data

    def stop(self) -> None:
        self._scope.close()


class TestGate(Contract):
    @pytest.fixture(params=[False, True], ids=["structured", "extended"])
    def disk(self, request, passing) -> Iterator[PassedDisk]:
        disk = PassedDisk(request.param)
        disk.fill(bytes(4096))
        # One pass, also for tests that refuse to begin.
        with contextlib.closing(disk.open()) as backend:
            backend.readinto(0, memoryview(bytearray(1)))
        disk.fill(b"")
        yield disk
        disk.stop()


# --- Real servers and clients ----------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(8 * MIB))
    return path


@pytest.fixture
def passed(image) -> Iterator[Exporting]:
    """qemu-nbd behind a gate."""
    with (
        QemuNbd(str(image), "raw", cache="writeback", aio="threads", shared=8) as server,
        Exporting(lambda: NBDBackend(server.url, writable=True)) as exporting,
    ):
        yield exporting


@pytest.mark.storage
@pytest.mark.parametrize("connections,requests", [(1, 1), (1, 64), (4, 16)])
def test_nbdcopy(tmp_path, image, passed, connections, requests):
    options = [f"--connections={connections}", f"--requests={requests}"]
    there, back = tmp_path / "there", tmp_path / "back"
    run(["nbdcopy", *options, uri(passed.path), there])
    assert there.read_bytes() == image.read_bytes()
    back.write_bytes(random.Random(2).randbytes(8 * MIB))
    run(["nbdcopy", *options, "--flush", back, uri(passed.path)])
    assert image.read_bytes() == back.read_bytes()


@pytest.mark.storage
def test_qemu(tmp_path, image, passed):
    url = f"nbd+unix:///?socket={passed.path}"
    commands = ["write -P 7 4096 100k", "write -z 1M 64k", "read -P 7 4096 100k", "read -P 0 1M 64k", "flush"]
    done = run(["qemu-io", "-f", "raw", url, *(word for command in commands for word in ("-c", command))])
    assert "failed" not in done
    assert image.read_bytes()[4096 : 4096 + 100 * KIB] == b"\7" * 100 * KIB
    copy = tmp_path / "copy.qcow2"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", url, copy])
    assert run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", url, copy]).startswith("Images are identical")


# --- Requests that do not pass ---------------------------------------------------------------------------------------


@pytest.fixture
def data() -> bytearray:
    return bytearray(random.Random(3).randbytes(MIB))


@pytest.fixture
def gated(data) -> Iterator[Exporting]:
    with (
        Exporting(lambda: MemoryBackend(data), can_extend=False) as there,
        Exporting(lambda: NBDBackend(f"nbd:unix:{there.path}", writable=True), can_extend=False) as here,
    ):
        yield here


@pytest.fixture
def sock(gated) -> Iterator[socket.socket]:
    with gated.connect() as sock:
        handshake(sock)
        yield sock


def test_answers_of_our_own_stand_between_replies(sock, data):
    """Refused requests among good ones, whose replies are long: each answer is whole."""
    count = 50
    messages = []
    for cookie in range(count):
        messages.append(request(Command.READ, 2 * cookie, 0, 100 * KIB))
        messages.append(request(Command.READ, 2 * cookie + 1, MIB, 512))
    sender = threading.Thread(target=sock.sendall, args=(b"".join(messages),))
    sender.start()
    good, bad = set(), set()
    current = b""
    while len(good) + len(bad) < 2 * count:
        flags, kind, cookie, payload = chunk(sock)
        if kind == 0x8001:
            assert struct.unpack_from(">I", payload)[0] == 22
            bad.add(cookie)
        else:
            current += payload[8:]
            if flags:
                assert current == data[: 100 * KIB]
                current = b""
                good.add(cookie)
    sender.join(DEADLINE)
    assert good == set(range(0, 2 * count, 2)) and bad == set(range(1, 2 * count, 2))


def test_payload_of_a_refused_write_is_dropped(sock, gated, data):
    before = bytes(data)
    sock.sendall(request(Command.WRITE, 1, MIB - 512, MIB // 2, bytes(MIB // 2)))
    assert fails(sock, 1) == 28
    sock.sendall(request(Command.READ, 2, 0, 512))
    assert chunk(sock) == (1, 1, 2, bytes(8) + before[:512])
    assert data == before


@pytest.mark.parametrize("cut", [1, 27, 28, 100])
def test_a_client_that_leaves_amid_a_request(sock, gated, data, cut):
    before = bytes(data)
    sock.sendall(request(Command.WRITE, 1, 0, 512, b"x" * 512)[:cut])
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    wait_until(lambda: bool(gated.failures), "the failure")
    assert isinstance(gated.failures[0], ClientFault)
    assert data == before


def test_a_cookie_twice(sock, gated):
    sock.sendall(request(Command.READ, 1, 0, MIB) + request(Command.READ, 1, 0, MIB))
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(MIB):
            pass
    wait_until(lambda: bool(gated.failures), "the failure")
    assert isinstance(gated.failures[0], ClientFault)


def test_header_in_any_pieces(sock, data):
    message = request(Command.WRITE, 1, 0, 512, b"y" * 512) + request(Command.READ, 2, 0, 512)
    for position in range(0, len(message), 7):
        sock.sendall(message[position : position + 7])
    assert chunk(sock) == (1, 0, 1, b"")
    assert chunk(sock) == (1, 1, 2, bytes(8) + b"y" * 512)


def test_watch(sock, gated):
    sock.sendall(request(Command.WRITE, 1, 0, 512, bytes(512)) + request(Command.READ, 2, 512, 1024))
    chunk(sock), chunk(sock)
    wait_until(lambda: len(gated.watch.begun) == 2, "both requests")
    assert gated.watch.begun == [(Command.WRITE, 0, 512), (Command.READ, 512, 1024)]


# --- Servers that misbehave ------------------------------------------------------------------------------------------


def forge(call: Call) -> None:
    call.chunk(call.request()._replace(cookie=99), wire.Chunk.NONE, done=True)


def answer_twice(call: Call) -> None:
    asked = call.request()
    call.chunk(asked, wire.Chunk.OFFSET_DATA, bytes(8 + asked.length), done=True)
    call.chunk(asked, wire.Chunk.OFFSET_DATA, bytes(8 + asked.length), done=True)


def send_too_much(call: Call) -> None:
    asked = call.request()
    call.chunk(asked, wire.Chunk.OFFSET_DATA, bytes(8 + asked.length + 1), done=True)


def speak_http(call: Call) -> None:
    call.request()
    call.send(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")


def hang_up(call: Call) -> None:
    call.request()
    call.hang_up()


def hang_up_amid_a_reply(call: Call) -> None:
    asked = call.request()
    call.send(wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, 1, 1, asked.cookie, 8 + asked.length) + bytes(9))
    call.hang_up()


MISBEHAVING = [forge, answer_twice, send_too_much, speak_http, hang_up, hang_up_amid_a_reply]


@pytest.mark.parametrize("misbehave", MISBEHAVING, ids=lambda script: script.__name__)
def test_a_server_that_misbehaves(misbehave):
    """The client is cut instead of being told lies, and the fault is said to be the storage's."""
    calls: list[Call] = []

    def script(call: Call) -> None:
        calls.append(call)
        call.negotiate()
        if len(calls) > 1:
            misbehave(call)
        call.wait_for_hangup()

    with (
        Peer(script) as peer,
        Exporting(lambda: NBDBackend(f"nbd:{peer.location.address}"), can_extend=False) as exporting,
        exporting.connect() as sock,
    ):
        handshake(sock)
        sock.sendall(request(Command.READ, 1, 0, 512))
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(MIB):
                pass
        wait_until(lambda: bool(exporting.failures), "the failure")
        assert isinstance(exporting.failures[0], errors.StorageError)


def test_a_server_that_is_silent():
    calls: list[Call] = []

    def script(call: Call) -> None:
        calls.append(call)
        call.negotiate()
        call.wait_for_hangup()

    def open_backend() -> NBDBackend:
        return NBDBackend(f"nbd:{peer.location.address}", reply_timeout=0.2)

    with (
        Peer(script) as peer,
        Exporting(open_backend, can_extend=False) as exporting,
        exporting.connect() as sock,
    ):
        handshake(sock)
        sock.sendall(request(Command.READ, 1, 0, 512))
        assert sock.recv(1) == b""
        wait_until(lambda: bool(exporting.failures), "the failure")
        assert isinstance(exporting.failures[0], errors.BackendTimeout)


def test_a_server_that_leaves_after_the_good_bye():
    """What it has sent before reaches a client that takes it slowly."""
    # More than the client's socket holds without reading, less than all buffers on the way.
    length = 512 * KIB
    calls: list[Call] = []
    has_left = threading.Event()

    def script(call: Call) -> None:
        calls.append(call)
        call.negotiate(length)
        if len(calls) > 1:
            asked = call.request()
            assert call.request().kind == Command.DISCONNECT
            call.chunk(asked, wire.Chunk.OFFSET_DATA, bytes(8 + asked.length), done=True)
            call.hang_up()
            has_left.set()
        call.wait_for_hangup()

    with (
        Peer(script) as peer,
        Exporting(lambda: NBDBackend(f"nbd:{peer.location.address}"), can_extend=False) as exporting,
        exporting.connect() as sock,
    ):
        handshake(sock)
        sock.sendall(request(Command.READ, 1, 0, length) + request(Command.DISCONNECT, 2, 0, 0))
        assert has_left.wait(DEADLINE)
        assert len(chunk(sock)[3]) == 8 + length
        assert sock.recv(1) == b""
    assert not exporting.failures


@pytest.mark.parametrize("is_sparse,expected", [(False, [0, 2, 3]), (True, [0, 0, 3])])
def test_zeroing_keeps_what_is_allocated_unless_the_ticket_is_sparse(is_sparse, expected):
    """The third request says so itself, and wants to be stored at once."""
    calls: list[Call] = []
    flags = []

    def script(call: Call) -> None:
        calls.append(call)
        call.negotiate()
        while True:
            asked = call.request()
            flags.append(asked.flags)
            call.done(asked)

    with (
        Peer(script) as peer,
        Exporting(
            lambda: NBDBackend(f"nbd:{peer.location.address}", writable=True, sparse=is_sparse), can_extend=False
        ) as exporting,
        exporting.connect() as sock,
    ):
        handshake(sock)
        for message in (
            request(Command.WRITE, 1, 0, 512, bytes(512)),
            request(Command.WRITE_ZEROES, 1, 0, 512),
            request(Command.WRITE_ZEROES, 1, 0, 512, flags=3),
        ):
            sock.sendall(message)
            assert receive(sock, 16)[4:8] == bytes(4)
    # The first one is the flush of the connection before.
    assert flags[-3:] == expected


def test_a_server_with_other_numbers_of_contexts(data):
    """What it tells passes; the client finds the numbers that were agreed with it, and the one bitmap by our name."""
    half = MIB // 2
    extents = {
        "zero": [ZeroExtent(0, half, False, False), ZeroExtent(half, half, True, True)],
        "dirty": [DirtyExtent(0, half, True, False), DirtyExtent(half, half, False, True)],
    }
    theirs = (BASE_ALLOCATION, ALLOCATION_DEPTH, f"{DIRTY_BITMAP}one")
    ours = (f"{DIRTY_BITMAP}changes", ALLOCATION_DEPTH, BASE_ALLOCATION)
    with (
        Exporting(lambda: MemoryBackend(data, extents=extents), contexts=theirs, can_extend=False) as there,
        Exporting(lambda: NBDBackend(f"nbd:unix:{there.path}"), contexts=ours, can_extend=False) as here,
        connect(here.location, dirty=True) as nbd,
    ):
        assert nbd.export.contexts == dict(enumerate(ours))
        assert list(status.zero_extents(nbd, 0, MIB)) == extents["zero"]
        assert list(status.dirty_extents(nbd, 0, MIB, ours[0])) == extents["dirty"]


def test_a_server_that_speaks_otherwise_is_translated(data, caplog):
    """A client without structured replies, and contexts with other numbers: each is served, if not unread."""
    with (
        Exporting(lambda: MemoryBackend(data), can_extend=False) as there,
        Exporting(lambda: NBDBackend(f"nbd:unix:{there.path}", writable=True), can_extend=True) as here,
    ):
        with connect(here.location) as nbd:
            # Our server offers more than the one behind it.
            assert nbd.export.mode is Mode.EXTENDED
            view = memoryview(bytearray(MIB))
            nbd.read(0, view)
            assert view == data
        # We closed the connection that was of no use: it did not break.
        assert "broke" not in caplog.text
        # And a client that asks for nothing passes.
        with here.connect() as sock:
            handshake(sock, old_style=True)
            sock.sendall(request(Command.READ, 3, 0, 512))
            assert receive(sock, 16 + 512)[16:] == data[:512]
