"""Connections without a socket, and operations and backends that do what the test says, step by step."""

from __future__ import annotations

import itertools
import queue
import threading
from typing import Callable, Optional

from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio import errors
from ovirt_imageio.auth.transfer import Transfer
from ovirt_imageio.auth.use import Use
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.measure.clock import Clock
from ovirt_imageio.ops.operations import Operation

_ids = itertools.count(1)


class FakeConnection:
    """Remembers what was asked of it; `wakers` are called by abort()."""

    def __init__(self) -> None:
        self.id = next(_ids)
        self.clock = Clock()
        self.client = "local"
        self.encryption = "none"
        self.traceparent: Optional[str] = None
        self.timeout: Optional[float] = None
        self.is_aborted = False
        self.is_left = False
        self.moved = 0
        self.needs: list[Callable[[], bool]] = []
        self.wakers: list[Callable[[], None]] = []
        self._closers: list[Callable[[], None]] = []

    def has_left(self) -> bool:
        return self.is_left

    def activity(self) -> int:
        return self.moved

    def abort(self) -> None:
        self.is_aborted = True
        for wake in self.wakers:
            wake()

    def on_close(self, callback: Callable[[], None]) -> None:
        self._closers.append(callback)

    def set_timeout(self, seconds: float) -> None:
        self.timeout = seconds

    def stay_while(self, is_needed: Callable[[], bool]) -> None:
        self.needs.append(is_needed)

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()


class FakeBackend(MemoryBackend):
    """Counts how often it was interrupted and closed."""

    def __init__(self) -> None:
        super().__init__(bytearray(1024))
        self.interrupted = 0
        self.closed = 0

    def interrupt(self) -> None:
        self.interrupted += 1

    def close(self) -> None:
        self.closed += 1
        super().close()


class Backends:
    """Opens FakeBackends, and keeps them; `error` makes it fail."""

    def __init__(self) -> None:
        self.opened: list[FakeBackend] = []
        self.error: Optional[Exception] = None
        # Of the last one.
        self.traceparent: Optional[str] = None

    def __call__(self, ticket: object, line: object = None, traceparent: Optional[str] = None) -> FakeBackend:
        self.traceparent = traceparent
        if self.error is not None:
            raise self.error
        backend = FakeBackend()
        self.opened.append(backend)
        return backend

    @property
    def leaked(self) -> int:
        return sum(not backend.closed for backend in self.opened)

    def wait_closed(self) -> None:
        """Wait until nothing is leaked: another thread may close what is idle."""
        wait_until(lambda: not self.leaked)


class Steps(Operation):
    """Blocks until the test makes it step, fail or end; abort() of its connection breaks it, as a socket would."""

    name = "write"

    def __init__(self, connection: FakeConnection, offset: int = 0, name: str = "write") -> None:
        super().__init__(FakeBackend(), offset, 1024)
        self.name = name  # type: ignore[misc]
        self.is_transfer = name != "flush"  # type: ignore[misc]
        self.is_answering = name == "read"  # type: ignore[misc]
        self.is_change = name in ("write", "zero", "flush")
        self.has_begun = threading.Event()
        self._orders: queue.Queue[tuple[Callable[[], None], threading.Event]] = queue.Queue()
        self._is_done = False
        connection.wakers.append(lambda: self.order(self._break, wait=False))

    def run(self) -> None:
        self.has_begun.set()
        while not self._is_done:
            order, is_executed = self._orders.get(timeout=DEADLINE)
            try:
                order()
            finally:
                is_executed.set()

    def order(self, order: Callable[[], None], wait: bool = True) -> None:
        is_executed = threading.Event()
        self._orders.put((order, is_executed))
        if wait:
            assert is_executed.wait(DEADLINE)

    def step(self, count: int) -> None:
        """Move so many bytes."""
        self.order(lambda: self.advance(count))

    def finishing(self) -> None:
        """The client has done its part."""
        self.order(lambda: setattr(self, "_is_finishing", True))

    def end(self) -> None:
        """Succeed."""
        self.order(lambda: setattr(self, "_is_done", True))

    def fail(self, error: BaseException) -> None:
        """Fail with error."""

        def order() -> None:
            raise error

        self.order(order)

    def _break(self) -> None:
        raise errors.StorageError("write", "broken pipe")


class Runner:
    """Runs operations of a transfer in threads, like connections do, and keeps what came of them.

    A context manager that aborts what still runs, and waits for the threads.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._connections: list[FakeConnection] = []

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *args: object) -> None:
        for connection in self._connections:
            connection.abort()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()

    def start(self, transfer: Transfer, connection: FakeConnection, offset: int = 0, name: str = "write") -> Run:
        """Start an operation, in a use of the disk that ends with it; return when it runs."""
        self._connections.append(connection)
        run = Run(Steps(connection, offset, name))
        thread = threading.Thread(target=run.run, args=(transfer, connection))
        thread.start()
        self._threads.append(thread)
        assert run.operation.has_begun.wait(DEADLINE)
        return run


class Run:
    """An operation in a thread: `error` is what it raised, once `wait` returned."""

    def __init__(self, operation: Steps) -> None:
        self.operation = operation
        self.error: Optional[BaseException] = None
        self._is_over = threading.Event()

    def run(self, transfer: Transfer, connection: FakeConnection) -> None:
        try:
            with Use(transfer, "read", connection) as disk:
                disk.run(self.operation)
        except BaseException as e:
            self.error = e
        finally:
            self._is_over.set()

    @property
    def is_over(self) -> bool:
        return self._is_over.is_set()

    def wait(self) -> Optional[BaseException]:
        """Wait for the end; return the error."""
        assert self._is_over.wait(DEADLINE)
        return self.error
