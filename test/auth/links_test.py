"""What a transfer holds on to."""

import pytest
from fakes.connections import FakeBackend, FakeConnection, Steps

from ovirt_imageio.auth.links import Link, Links, Running


@pytest.fixture
def connection():
    return FakeConnection()


def running(connection, name):
    link = Link(connection)
    link.backend = FakeBackend()
    return Running(Steps(connection, name=name), link, 0)


def test_read_is_cut_at_once(connection):
    read = running(connection, "read")
    read.cut("reason")
    assert read.cut_reason == "reason"
    assert connection.is_aborted
    assert read.link.backend.interrupted == 1


@pytest.mark.parametrize("name", ["write", "zero", "flush", "checksum", "extents"])
def test_others_may_notice_first(connection, name):
    run = running(connection, name)
    run.cut("reason")
    assert not connection.is_aborted
    assert run.link.backend.interrupted == 0
    run.cut("reason")
    assert connection.is_aborted
    assert run.link.backend.interrupted == 1


def test_backend_name(connection):
    read = running(connection, "read")
    assert read.backend_name == "memory"
    read.link.backend = None
    assert read.backend_name == "memory"
    read.cut("without a backend")
    assert connection.is_aborted


# --- All of them ---


@pytest.fixture
def links():
    return Links()


def test_no_links(links, connection):
    assert links.find(connection) is None
    assert links.is_drained
    assert links.opened == 0
    assert links.describe(0) == []


def test_add_and_remove(links, connection):
    link = links.add(connection)
    assert links.find(connection) is link
    assert links.opened == 0
    link.was_opened = True
    assert links.opened == 1
    assert links.idle() == [link]
    links.remove(link)
    assert links.find(connection) is None


def moved(links, client, received, sent, name=None):
    """Return a link that has moved something, and whose operation runs if it has a name."""
    connection = FakeConnection()
    connection.client = client
    link = links.add(connection)
    link.was_opened = True
    link.received, link.sent = received, sent
    if name is not None:
        links.running.add(Running(Steps(connection, name=name), link, 0))
    return link


def test_clients(links, connection):
    links.add(connection)
    assert links.clients(0) == []
    one = moved(links, "192.0.2.7", 100, 0, "write")
    moved(links, "192.0.2.7", 10, 1)
    moved(links, "192.0.2.7", 0, 1000, "nbd")
    other = moved(links, "192.0.2.10", 0, 0)
    links.clients(0)
    one.received += 50
    one.sample(1)
    assert links.clients(2) == [
        {"address": "192.0.2.10", "protocol": "http", "connections": 1, "received": 0, "sent": 0, "rate": 0},
        {"address": "192.0.2.7", "protocol": "http", "connections": 2, "received": 160, "sent": 1, "rate": 25},
        {"address": "192.0.2.7", "protocol": "nbd", "connections": 1, "received": 0, "sent": 1000, "rate": 0},
    ]
    links.remove(other)
    assert [client["address"] for client in links.clients(3)] == ["192.0.2.7", "192.0.2.7"]


def test_what_is_in_use(links):
    idle, used, busy = (links.add(FakeConnection()) for _ in range(3))
    used.is_in_use = busy.is_in_use = True
    run = Running(Steps(busy.connection, name="read"), busy, 10)
    links.running.add(run)
    assert links.idle() == [idle]
    assert links.between_operations() == [used]
    assert links.describe(15) == [
        f"read of 1024 bytes at 0, 0 done (connection {busy.connection.id}, for 5 s)",
        f"a request (connection {used.connection.id})",
    ]
    links.running.discard(run)
    assert not links.is_drained
    used.is_in_use = busy.is_in_use = False
    assert links.is_drained


def test_taken_backends_are_in_between(links):
    one, two = (links.add(FakeConnection()) for _ in range(2))
    backend = one.backend = FakeBackend()
    assert links.take_backends([one, two], 10) == [backend]
    assert one.backend is None
    assert not links.is_drained
    assert links.describe(15) == ["closing the disk (for 5 s)"]
    assert links.take_backends([one, two], 20) == []
    links.end_closing(backend)
    assert links.is_drained
    assert links.describe(15) == []


def test_opening_is_in_between(links, connection):
    link = links.add(connection)
    link.is_in_use = True
    line = links.begin_opening(link, 10)
    assert links.opening() == [(link, line)]
    assert not links.is_drained
    assert links.describe(15) == [f"opening the disk (connection {connection.id}, for 5 s)"]
    links.end_opening(link)
    assert links.opening() == []
    assert links.describe(15) == [f"a request (connection {connection.id})"]
    link.is_in_use = False
    assert links.is_drained
