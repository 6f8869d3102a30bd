"""What a store tells of its tickets."""

import pytest
from fakes.clock import FakeClock
from fakes.connections import Backends, FakeConnection
from fakes.observers import Called

from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.store import Store
from ovirt_imageio.ops import operations

DOCUMENT = {"uuid": "one-ticket", "size": 1024, "url": "file:///disk", "ops": ["write"], "timeout": 300}


class Recorder(Called, TicketObserver):
    """Hooks that do nothing but count."""


@pytest.mark.parametrize("observer", [Recorder(), None])
def test_life_of_a_store(observer):
    clock = FakeClock(1000)
    store = Store(Backends(), clock, purge_after=600, observer=observer)
    store.add(DOCUMENT)
    connection = FakeConnection()
    with store.use("one-ticket", "write", connection) as disk:
        disk.run(operations.Zero(disk.backend, 0, 10))
    store.remove("one-ticket", 1)
    connection.close()
    store.add(DOCUMENT)
    clock.advance(1000)
    store.tick()
    if observer is not None:
        assert observer.called == [
            "ticket_added",
            "bytes_moved",
            "client_moved",
            "operation_finished",
            "ticket_removed",
            "ticket_added",
            "ticket_expired",
        ]
        assert set(observer.called) == {name for name in vars(TicketObserver) if not name.startswith("_")}
