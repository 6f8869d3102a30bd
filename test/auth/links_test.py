"""What a transfer holds on to."""

import pytest
from fakes.connections import FakeBackend, FakeConnection, Steps

from ovirt_imageio.auth.links import Link, Listener, Running


@pytest.fixture
def connection():
    return FakeConnection()


def running(connection, name):
    link = Link(connection)
    link.backend = FakeBackend()
    return Running(Steps(connection, name=name), link, 0)


@pytest.mark.parametrize(
    "name, is_write",
    [("read", False), ("checksum", False), ("extents", False), ("write", True), ("zero", True), ("flush", True)],
)
def test_is_write(connection, name, is_write):
    assert running(connection, name).is_write is is_write


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
    assert read.backend_name == "none"
    read.cut("without a backend")
    assert connection.is_aborted


def test_listener_ignores_everything():
    listener = Listener()
    listener.ticket_added()
    listener.ticket_removed()
    listener.ticket_expired()
    listener.bytes_moved("nbd", "read", 1)
    listener.operation_finished("nbd", "read", None)
