"""GET /images/TICKET with `Upgrade: nbd`: the ticket decides, request by request."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
from collections.abc import Iterator
from types import MappingProxyType

import pytest
from fakes.clock import FakeClock
from fakes.imageserver import ProxyServer
from fakes.nbdclient import chunk, fails, handshake, receive, request
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import DirtyExtent
from ovirt_imageio.nbd import gate
from ovirt_imageio.nbd.wire import Command

SIZE = 64 * 1024
DISK = bytes(range(256)) * (SIZE // 256)

UPGRADE = "Connection: keep-alive, Upgrade\r\nUpgrade: nbd\r\n"


@contextlib.contextmanager
def connect(server, ticket_id: str, headers: str = UPGRADE) -> Iterator[socket.socket]:
    """Ask for NBD; yield the connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(server.path)
        sock.sendall(f"GET /images/{ticket_id} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        yield sock


def head(sock: socket.socket) -> list[str]:
    """Return the lines of the answer's head."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += receive(sock, 1)
    return data.decode().split("\r\n")


@contextlib.contextmanager
def attached(server, ticket_id: str) -> Iterator[socket.socket]:
    """Attach the disk of a ticket."""
    with connect(server, ticket_id) as sock:
        lines = head(sock)
        assert lines[0] == "HTTP/1.1 101 Switching Protocols"
        assert "upgrade: nbd" in lines and "connection: upgrade" in lines
        handshake(sock)
        yield sock


@pytest.fixture
def server(image_server, tmp_path):
    with image_server(tmp_path) as server:
        server.add("read", DISK)
        server.disk = bytearray(DISK)
        server.add("write", server.disk, ops=["write"])
        yield server


def leave(sock: socket.socket) -> None:
    """Say good-bye, and wait until the server has heard it."""
    sock.sendall(request(Command.DISCONNECT, 0, 0, 0))
    assert sock.recv(1) == b""


def test_read(server):
    with attached(server, "read") as sock:
        sock.sendall(request(Command.READ, 7, 512, 1024))
        assert chunk(sock) == (1, 1, 7, struct.pack(">Q", 512) + DISK[512:1536])
        leave(sock)
    wait_until(lambda: not server.store.info("read")["active"], "the end")
    info = server.store.info("read")
    assert info["transferred"] == 1024
    assert info["last_error"] is None


def test_write(server):
    with attached(server, "write") as sock:
        sock.sendall(request(Command.WRITE, 1, 512, 512, b"x" * 512) + request(Command.FLUSH, 2, 0, 0))
        assert [chunk(sock), chunk(sock)] == [(1, 0, 1, b""), (1, 0, 2, b"")]
        sock.sendall(request(Command.READ, 3, 0, 1536))
        assert chunk(sock)[3][8:] == DISK[:512] + b"x" * 512 + DISK[1024:1536]
        leave(sock)
    assert server.disk == DISK[:512] + b"x" * 512 + DISK[1024:]
    wait_until(lambda: not server.store.info("write")["active"], "the end")
    # The union of what was read and written, each byte once.
    assert server.store.info("write")["transferred"] == 1536


def test_a_ticket_to_read_does_not_permit_to_write(server):
    with attached(server, "read") as sock:
        sock.sendall(request(Command.WRITE, 1, 0, 512, b"x" * 512) + request(Command.WRITE_ZEROES, 2, 0, 512))
        assert [fails(sock, 1), fails(sock, 2)] == [1, 1]
        sock.sendall(request(Command.READ, 3, 0, 512))
        assert chunk(sock)[3][8:] == DISK[:512]


def test_the_ticket_decides_the_size(server):
    server.add("part", DISK, size=1024)
    with attached(server, "part") as sock:
        sock.sendall(request(Command.READ, 1, 0, 1024))
        assert chunk(sock)[3][8:] == DISK[:1024]
        sock.sendall(request(Command.READ, 2, 512, 1024))
        assert fails(sock, 2) == 22


@pytest.mark.parametrize("name,accepted", [("", True), ("read", True), ("write", False), ("other", False)])
def test_names_of_the_export(server, name, accepted):
    with connect(server, "read") as sock:
        head(sock)
        receive(sock, 18)
        encoded = name.encode()
        payload = struct.pack(">I", len(encoded)) + encoded + bytes(2)
        sock.sendall(bytes(3) + b"\3" + b"IHAVEOPT" + struct.pack(">II", 7, len(payload)) + payload)
        _, _, kind, _ = struct.unpack(">QIII", receive(sock, 20))
        assert kind == (3 if accepted else 0x80000006)


def test_requests_may_follow_the_head_at_once(server):
    """A client that is sure of its server does not wait for the answer."""
    hello = bytes(3) + b"\3" + b"IHAVEOPT" + struct.pack(">II", 1, 0)
    with connect(server, "read", UPGRADE) as sock:
        sock.sendall(hello + request(Command.READ, 1, 0, 512))
        head(sock)
        receive(sock, 18 + 10 + 16)
        assert receive(sock, 512) == DISK[:512]


@pytest.mark.parametrize(
    "headers",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: nbd\r\n",
        "Connection: upgrade\r\n",
        "Connection: upgrade\r\nUpgrade: nbd\r\nContent-Length: 5\r\n",
    ],
)
def test_other_upgrades_are_ignored(server, headers):
    with connect(server, "read", headers) as sock:
        assert head(sock)[0] == "HTTP/1.1 200 OK"
        assert receive(sock, SIZE) == DISK


def test_one_protocol_of_several(server):
    with connect(server, "read", "Connection: upgrade\r\nUpgrade: h2c, NBD\r\n") as sock:
        assert head(sock)[0] == "HTTP/1.1 101 Switching Protocols"


def test_no_ticket(server):
    with connect(server, "unknown") as sock:
        assert head(sock)[0] == "HTTP/1.1 403 Forbidden"


def test_options_tell_the_feature(server):
    for ticket in ("read", "write", "*"):
        assert "nbd" in server.request("OPTIONS", f"/images/{ticket}").json()["features"]


def test_removal_cuts_a_client_that_is_attached(server):
    with attached(server, "write") as sock:
        wait_until(lambda: server.store.info("write")["active"], "the client")
        server.store.remove("write", DEADLINE)
        assert sock.recv(1) == b""
        assert "write" not in [ticket["uuid_prefix"] for ticket in server.store.list()]


def test_an_expired_ticket_cuts_a_client_that_is_attached(image_server, tmp_path):
    clock = FakeClock(1000)
    with image_server(tmp_path, clock=clock) as server:
        server.add("x", DISK, timeout=100)
        with attached(server, "x") as sock:
            for cookie in range(3):
                # Requests are activity, also where each of them comes late.
                clock.advance(90)
                sock.sendall(request(Command.READ, cookie, 0, 512))
                assert chunk(sock)[2] == cookie
                server.store.tick()

            def is_over() -> bool:
                # What the server has counted of the last answer is activity, too: it may need more than one look.
                clock.advance(101)
                return not server.store.info("x")["active"]

            wait_until(is_over, "the end")
            assert sock.recv(1) == b""


def test_what_breaks_the_protocol_is_told_to_the_operator(server):
    with attached(server, "read") as sock:
        sock.sendall(b"GET /images/read HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
    wait_until(lambda: server.store.info("read")["last_error"], "the error")
    assert "broke the protocol" in server.store.info("read")["last_error"]


def test_dirty_extents(image_server, tmp_path):
    class Changed(MemoryBackend):
        contexts = MappingProxyType({0: "base:allocation", 1: "qemu:dirty-bitmap:changed"})

    changed = [DirtyExtent(0, 512, True, False), DirtyExtent(512, SIZE - 512, False, False)]
    with image_server(tmp_path) as server:
        server.add("x", lambda: Changed(DISK, extents={"dirty": changed, "zero": []}), size=SIZE, dirty=True)
        with connect(server, "x") as sock:
            head(sock)
            receive(sock, 18)
            query = bytes(4) + struct.pack(">II", 1, 18) + b"qemu:dirty-bitmap:"
            structured = b"IHAVEOPT" + struct.pack(">II", 8, 0)
            sock.sendall(bytes(3) + b"\3" + structured + b"IHAVEOPT" + struct.pack(">II", 9, len(query)) + query)
            receive(sock, 20)
            _, _, kind, length = struct.unpack(">QIII", receive(sock, 20))
            assert kind == 4
            assert receive(sock, length)[4:].startswith(b"qemu:dirty-bitmap:")


def test_a_proxy_lets_bytes_pass(tmp_path, monkeypatch):
    gates = []
    real = gate.Gate.run

    def counted(self: gate.Gate) -> None:
        gates.append(self)
        real(self)

    monkeypatch.setattr(gate.Gate, "run", counted)
    with ProxyServer(tmp_path) as server:
        server.add("read", DISK)
        with attached(server, "read") as sock:
            sock.sendall(request(Command.READ, 7, 512, 1024))
            assert chunk(sock) == (1, 1, 7, struct.pack(">Q", 512) + DISK[512:1536])
            leave(sock)
    assert len(gates) == 1


def test_the_ticket_is_in_no_log(server, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "b2e4a7c0-1111-2222-3333-444455556666"
    server.add(secret, DISK)
    with attached(server, secret) as sock:
        sock.sendall(request(Command.READ, 1, 0, 512))
        chunk(sock)
        leave(sock)
    wait_until(lambda: "DETACH" in caplog.text, "the log line")
    assert "ATTACH" in caplog.text
    assert secret not in caplog.text
