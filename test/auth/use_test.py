"""One use of a disk by one request."""

import pytest
from fakes.clock import FakeClock
from fakes.connections import Backends, FakeConnection

from ovirt_imageio import errors
from ovirt_imageio.auth.ticket import parse
from ovirt_imageio.auth.transfer import Transfer
from ovirt_imageio.auth.use import Use
from ovirt_imageio.ops import operations


@pytest.fixture
def backends():
    return Backends()


@pytest.fixture
def clock():
    return FakeClock(1000)


@pytest.fixture
def make(backends, clock):
    def make(**changes):
        document = {"uuid": "id", "size": 1000, "url": "file:///disk", "ops": ["write"], "timeout": 300, **changes}
        return Transfer(parse(document), backends, clock)

    return make


@pytest.fixture
def connection():
    return FakeConnection()


def test_what_a_request_sees(make, connection, backends):
    transfer = make(transfer_id="transfer-1")
    with Use(transfer, "write", connection) as disk:
        assert disk.backend is backends.opened[0]
        assert disk.ticket is transfer.ticket
        assert disk.transfer_id == "transfer-1"
        assert disk.content_tag == transfer.content_tag
        assert disk.info == transfer.info()


@pytest.mark.parametrize(
    "size, can_grow, expected",
    [(1000, False, (1000, 1000)), (2000, False, (1024, 1024)), (2000, True, (1024, 2000)), (1000, True, (1000, 1000))],
)
def test_ticket_and_disk_limit_each_other(make, connection, size, can_grow, expected):
    """The disk has 1024 bytes."""
    with Use(make(size=size), "write", connection) as disk:
        disk.backend.can_grow = can_grow
        assert (disk.size, disk.capacity) == expected


def test_run(make, connection):
    transfer = make()
    with Use(transfer, "write", connection) as disk:
        disk.run(operations.Zero(disk.backend, 0, 10))
        disk.run(operations.Zero(disk.backend, 10, 10))
    assert transfer.info()["transferred"] == 20


def test_touch(make, connection, clock):
    transfer = make()
    clock.advance(100)
    with Use(transfer, "read", connection) as disk:
        assert transfer.info()["remaining"] == 200
        disk.touch()
    assert transfer.info()["remaining"] == 300


def test_refused(make, connection, backends):
    with pytest.raises(errors.NotPermitted), Use(make(ops=["read"]), "write", connection):
        pytest.fail("the block must not run")
    assert backends.opened == []


def test_given_back_whatever_happens(make, connection, backends):
    transfer = make()
    with pytest.raises(ZeroDivisionError), Use(transfer, "read", connection):
        transfer.cancel()
        raise ZeroDivisionError
    assert transfer.is_drained
    assert backends.opened[0].closed == 1


def test_nothing_outside_of_the_block(make, connection):
    with pytest.raises(AssertionError):
        _ = Use(make(), "read", connection).backend


def test_failed_backend_is_not_there_any_more(make, connection):
    class Failing(operations.Flush):
        def run(self):
            raise errors.StorageError("flush", "broken")

    with Use(make(), "write", connection) as disk:
        with pytest.raises(errors.StorageError):
            disk.run(Failing(disk.backend))
        with pytest.raises(AssertionError):
            _ = disk.backend
