"""What goes on in the process, counted: what servers and the store of tickets tell becomes numbers for Prometheus.

Labels never hold a ticket id, a path or anything else that a client can choose: their values are few. Knows nothing of
the readers of the numbers.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.store import Store
from ovirt_imageio.httpd.observer import Observer
from ovirt_imageio.httpd.peer import Peer
from ovirt_imageio.measure.metrics import Registry
from ovirt_imageio.version import __version__

__all__ = ["Metrics"]

# The buckets, in seconds: from a status request to the upload of a large disk.
LATENCIES = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 600, 3600)

METHODS = frozenset(["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS"])

DIRECTIONS = {"read": "out", "write": "in"}

STATES = ("idle", "active", "expired", "canceled")

# Where Linux tells facts about this process; sizes are in KiB.
PROCESS_STATUS = "/proc/self/status"


class Metrics(Observer, TicketObserver):
    """Counts what the servers and the store of tickets tell it.

    Threads: any number at once.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        counter = self.registry.counter
        self._added = counter("imageio_tickets_added_total", "Tickets that were added.")
        self._removed = counter("imageio_tickets_removed_total", "Tickets that were removed or replaced.")
        self._purged = counter("imageio_tickets_expired_total", "Tickets that expired and were forgotten.")
        self._bytes = counter(
            "imageio_transfer_bytes_total", "Image bytes that came in or went out.", "backend", "direction"
        )
        self._operations = counter(
            "imageio_operations_total", "Operations on disks that ended.", "backend", "operation", "result"
        )
        self._errors = counter("imageio_errors_total", "Operations on disks that failed.", "error")
        self._requests = counter("imageio_requests_total", "HTTP requests.", "route", "method", "status")
        self._latency = self.registry.histogram(
            "imageio_request_seconds", "How long HTTP requests took.", LATENCIES, "route", "method"
        )
        self._opened = counter("imageio_connections_opened_total", "Connections of clients that were opened.")
        self._closed = counter("imageio_connections_closed_total", "Connections of clients that were closed.")
        self._encrypted = counter(
            "imageio_tls_connections_total", "Connections of clients over TLS that were closed.", "encryption"
        )
        self.registry.gauge("imageio_connections", "Connections of clients that are open.", self._open_connections)
        self.registry.counted("process_cpu_seconds_total", "Processor time, user and system.", time.process_time)
        self.registry.gauge("process_resident_memory_bytes", "Memory in use.", lambda: process_status("VmRSS", 1024))
        started = time.time()
        self.registry.gauge("process_start_time_seconds", "When it started.", lambda: {(): started})
        build = (__version__, platform.python_version())
        self.registry.gauge("imageio_build_info", "Always 1; the labels tell.", lambda: {build: 1}, "version", "python")
        self.registry.gauge("process_threads", "Threads.", lambda: process_status("Threads", 1))

    def watch(self, store: Store) -> None:
        """Tell the states of this store's transfers, too."""

        def read() -> Mapping[tuple[str, ...], float]:
            states = store.states()
            return {(state,): states.get(state, 0) for state in STATES}

        self.registry.gauge("imageio_transfers", "Transfers, by what they are doing.", read, "state")

    def watch_certificate(self, expires: Callable[[], Optional[int]]) -> None:
        """Tell when the certificate that clients see now expires."""

        def read() -> Mapping[tuple[str, ...], float]:
            end = expires()
            return {} if end is None else {(): end}

        self.registry.gauge("imageio_certificate_expiry_seconds", "When it expires, in seconds since the epoch.", read)

    # Observer of the servers.

    def connection_opened(self, connection: Peer) -> None:
        """A client connected."""
        self._opened.add()

    def connection_closed(self, connection: Peer) -> None:
        """A connection was closed."""
        self._closed.add()
        if connection.encryption != "none":
            self._encrypted.add(connection.encryption)

    def request_finished(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        method = method if method in METHODS else "other"
        self._requests.add(route, method, str(status))
        self._latency.observe(route, method, value=seconds)

    # Observer of the store.

    def ticket_added(self) -> None:
        """A ticket was added."""
        self._added.add()

    def ticket_removed(self) -> None:
        """A ticket was removed."""
        self._removed.add()

    def ticket_expired(self) -> None:
        """A ticket was purged."""
        self._purged.add()

    def bytes_moved(self, backend: str, operation: str, count: int) -> None:
        """An operation moved bytes; zeroing and checksums move none over the network."""
        direction = DIRECTIONS.get(operation)
        if direction is not None:
            self._bytes.add(backend, direction, count=count)

    def operation_finished(self, backend: str, operation: str, error: Optional[BaseException]) -> None:
        """An operation ended."""
        self._operations.add(backend, operation, "success" if error is None else "error")
        if error is not None:
            foreseen = isinstance(error, (errors.Error, OSError))
            self._errors.add(type(error).__name__ if foreseen else "InternalError")

    def _open_connections(self) -> Mapping[tuple[str, ...], float]:
        # In this order: one that is closed in between must not make it negative.
        closed = self._closed.value()
        return {(): self._opened.value() - closed}


def process_status(name: str, unit: int, path: str = PROCESS_STATUS) -> Mapping[tuple[str, ...], float]:
    """Return one number of this process; none where the system does not tell it."""
    try:
        with open(path) as file:
            for line in file:
                key, _, value = line.partition(":")
                if key == name:
                    return {(): int(value.split()[0]) * unit}
    except OSError:
        pass
    return {}
