"""Storage that hangs in the kernel, as NFS does whose server is gone: only what uses it waits for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading

import pytest
from fakes.waiting import wait_until
from real import daemon, hanging

IMPATIENT = """\
[daemon]
drain_timeout = 0.1
[control]
remove_timeout = 1
remove_grace = 0
purge_after = 0
"""


@pytest.fixture
def storage(tmp_path):
    with contextlib.closing(hanging.Storage(tmp_path)) as storage:
        yield storage


@pytest.fixture
def running(tmp_path, storage):
    with daemon.running(tmp_path, IMPATIENT, environ=storage.environ) as running:
        try:
            yield running
        finally:
            storage.go_on()


class Client:
    """A connection over the Unix socket; a request may be left alone in a thread."""

    def __init__(self, running, path):
        self._connection = running.connect_unix(running.local_socket)
        self._sock = self._connection.sock
        self._path = path
        self._thread = None

    def ask(self, method, headers=None, body=None):
        self._connection.request(method, self._path, body, headers or {})
        response = self._connection.getresponse()
        return response.status, response.read()

    def leave(self, method, headers=None, body=None):
        def ask():
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask(method, headers, body)

        self._thread = threading.Thread(target=ask)
        self._thread.start()

    def close(self):
        # Wakes the thread.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
        self._connection.close()


@pytest.fixture
def connect(running, storage):
    """Return a new client of a disk on this storage, and its ticket."""
    disk = storage.folder / "disk"
    disk.write_bytes(bytes(SIZE))
    with contextlib.ExitStack() as stack:

        def connect(**ticket):
            url = running.add_ticket(url=f"file://{disk}", size=SIZE, **ticket)
            ticket_id = url.rpartition("/")[2]
            return stack.enter_context(contextlib.closing(Client(running, f"/images/{ticket_id}"))), ticket_id

        yield connect


def remove(running, ticket_id):
    status, text = running.control("DELETE", f"/tickets/{ticket_id}")
    return status, text.decode()


SIZE = 8 * 1024**2
SMALL = {"Range": "bytes=0-9"}


def check_removal(running, storage, ticket_id, busy_with):
    """It is told what hangs, and succeeds when that is over."""
    status, text = remove(running, ticket_id)
    assert status == 409
    assert busy_with in text
    storage.go_on()
    wait_until(lambda: remove(running, ticket_id)[0] == 204)


def test_opening(running, storage, connect):
    client, ticket_id = connect()
    storage.hang()
    client.leave("GET", SMALL)
    storage.wait()
    check_removal(running, storage, ticket_id, "opening the disk (connection")


@pytest.mark.parametrize(
    ("method", "headers", "body", "busy_with"),
    [
        ("GET", {}, None, "read of 8388608 bytes at 0"),
        ("PUT", {}, bytes(1024**2), "write of 1048576 bytes at 0"),
        ("PATCH", {}, b'{"op": "flush"}', "flush of 0 bytes"),
        ("PATCH", {}, b'{"op": "zero", "offset": 100, "size": 1048576}', "zero of 1048576 bytes"),
    ],
    ids=["read", "write", "flush", "zero"],
)
def test_operation(running, storage, connect, method, headers, body, busy_with):
    client, ticket_id = connect()
    assert client.ask("PUT", {}, b"x" * 5000)[0] == 200
    storage.hang()
    client.leave(method, headers, body)
    storage.wait()
    check_removal(running, storage, ticket_id, busy_with)


def test_idle(running, storage, connect):
    """Only closing hangs, and only the removal waits for that."""
    client, ticket_id = connect()
    assert client.ask("GET", SMALL)[0] == 206
    storage.hang()
    check_removal(running, storage, ticket_id, "closing the disk (for")


def test_replaced(running, storage, connect, tmp_path):
    client, ticket_id = connect()
    assert client.ask("GET", SMALL)[0] == 206
    storage.hang()
    other = tmp_path / "other"
    other.write_bytes(b"other disk")
    running.add_ticket(ticket_id, url=f"file://{other}", size=10)
    with contextlib.closing(Client(running, f"/images/{ticket_id}")) as another:
        assert another.ask("GET") == (200, b"other disk")


def test_expired(running, storage, connect, tmp_path):
    """The thread that purges tickets does not hang: another transfer that stands still is aborted."""
    client, ticket_id = connect()
    assert client.ask("GET", SMALL)[0] == 206
    # The end of the request makes it live longer.
    wait_until(lambda: not json.loads(running.control("GET", f"/tickets/{ticket_id}")[1])["active"])
    storage.hang()
    running.control("PATCH", f"/tickets/{ticket_id}", {"timeout": 0})
    wait_until(lambda: running.control("GET", f"/tickets/{ticket_id}")[0] == 404)
    other = tmp_path / "other"
    other.write_bytes(bytes(64 * 1024**2))
    stalled_id = running.add_ticket(url=f"file://{other}", size=64 * 1024**2).rpartition("/")[2]

    def is_aborted():
        # What was still on its way to fill the buffers made it live longer.
        status, body = running.control("GET", f"/tickets/{stalled_id}")
        if status == 200 and json.loads(body)["remaining"] > 1:
            running.control("PATCH", f"/tickets/{stalled_id}", {"timeout": 1})
        return "it stood still until its ticket expired" in running.log()

    with contextlib.closing(running.connect()) as stalled:
        stalled.request("GET", f"/images/{stalled_id}")
        response = stalled.getresponse()
        wait_until(is_aborted, running.log)
        with pytest.raises((http.client.IncompleteRead, OSError)):
            response.read()


def test_others_are_served(running, storage, connect, tmp_path):
    storage.hang()
    for _ in range(4):
        client, _ = connect()
        client.leave("GET")
    storage.wait(4)
    other = tmp_path / "other"
    other.write_bytes(b"other disk")
    url = running.add_ticket(url=f"file://{other}", size=10)
    with contextlib.closing(Client(running, "/images/" + url.rpartition("/")[2])) as another:
        assert another.ask("GET") == (200, b"other disk")
    status, body = running.control("GET", "/tickets")
    assert status == 200
    assert len(json.loads(body)) == 5


def test_stop(running, storage, connect):
    """The daemon ends, though threads of it that open, read and close a disk do not."""
    opening, reading, idle = (connect()[0] for _ in range(3))
    for client in (reading, idle):
        assert client.ask("GET", SMALL)[0] == 206
    storage.hang()
    opening.leave("GET")
    reading.leave("GET")
    storage.wait(2)
    assert running.stop() == 0
