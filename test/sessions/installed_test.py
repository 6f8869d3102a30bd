"""A ticket lives while its token is good, and goes with it; but nothing that runs is cut."""

import pytest
from fakes.clock import FakeClock
from fakes.connections import Backends, FakeConnection, Runner

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.sessions import installed

TICKET = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"


@pytest.fixture
def clock():
    return FakeClock(1000)


@pytest.fixture
def store(clock):
    store = Store(Backends(), clock)
    store.add({"uuid": TICKET, "size": 100, "url": "file:///disk", "ops": ["read"], "timeout": 60})
    return store


def test_what_lives_stays_as_it_is(store):
    assert installed.keep(store, TICKET, {"timeout": 300})
    assert store.info(TICKET)["expires"] == 1060


def test_what_expired_is_extended(store, clock):
    clock.advance(61)
    assert installed.keep(store, TICKET, {"timeout": 300})
    store.authorize(TICKET, "read")
    assert store.info(TICKET)["expires"] == 1361


def test_what_is_forgotten_is_told(store):
    store.remove(TICKET, 0)
    assert not installed.keep(store, TICKET, {"timeout": 300})
    assert store.list() == []


def test_retire(store):
    installed.retire(store, TICKET)
    assert TICKET not in store
    installed.retire(store, TICKET)


def test_retiring_cuts_nothing(store, clock):
    connection = FakeConnection()
    with Runner() as runner:
        run = runner.start(store.authorize(TICKET, "read"), connection, name="read")
        installed.retire(store, TICKET)
        assert not connection.is_aborted
        run.operation.end()
        run.wait()
    assert store.authorize(TICKET, "read")
    clock.advance(61)
    with pytest.raises(errors.NoSuchTicket):
        store.authorize(TICKET, "read")
