"""What threads do at the same time, and what must hold whatever their order: one function for each scenario.

Each is given a Scheduler, by whose dice it also decides what to do; it raises when something does not hold.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Callable, Optional

from interleavings.scheduler import Scheduler

from ovirt_imageio import errors
from ovirt_imageio.auth import agenda, books, cutter, lease, links, news, progress, use, watchdog
from ovirt_imageio.auth import store as stores
from ovirt_imageio.auth import transfer as transfers
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.writes import UnflushedWrites
from ovirt_imageio.client.copy import engine, pace, plan
from ovirt_imageio.client.copy import queue as queues
from ovirt_imageio.measure.clock import NullClock
from ovirt_imageio.net import lifeline
from ovirt_imageio.ops.operations import Operation
from ovirt_imageio.relay import buffers, ring, worker
from ovirt_imageio.storage import shared

__all__ = ["MODULES", "SCENARIOS", "Change", "Scenario", "run"]

Scenario = Callable[[Scheduler], None]
# Changes the code for the time of a with block.
Change = Callable[[Scheduler], contextlib.AbstractContextManager[object]]

ID = "ticket"

# Whose lines are steps, and whose locks are ours.
MODULES = (
    *(agenda, books, cutter, lease, links, news, progress, use, stores, transfers, watchdog, lifeline),
    *(buffers, ring, worker),
    *(engine, pace, queues),
    shared,
)

# Sets of these would be walked through in an order that differs from run to run.
HASHES: Mapping[type, Callable[[Any], int]] = MappingProxyType(
    {
        links.Link: lambda link: link.connection.id,
        links.Running: lambda running: running.operation.number,
        transfers.Transfer: lambda transfer: int(transfer.id),
    }
)


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """Make the order of sets depend on the seed alone, and keep quiet."""
    logging.disable(logging.CRITICAL)
    for kind, number in HASHES.items():
        kind.__hash__ = number  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for kind in HASHES:
            del kind.__hash__
        logging.disable(logging.NOTSET)


def run(scenario: Scenario, seed: int, change: Change = lambda scheduler: contextlib.nullcontext()) -> Scheduler:
    """Run a scenario with a seed, perhaps on changed code. Raises what does not hold."""
    scheduler = Scheduler(seed, MODULES)
    with steady(), scheduler.replacing(*MODULES), change(scheduler):
        scheduler.run(lambda: scenario(scheduler))
    return scheduler


def together(scheduler: Scheduler, *targets: Callable[[], object]) -> None:
    """Run functions in threads, and wait for all."""
    threads = [
        scheduler.threading.Thread(target=target, name=f"{target.__name__}-{n}") for n, target in enumerate(targets)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- Tickets ----------------------------------------------------------------------------------------------------------


class Tally(TicketObserver):
    """Counts what the store tells."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.moved = 0

    def ticket_added(self) -> None:
        self.events["added"] += 1

    def ticket_removed(self) -> None:
        self.events["gone"] += 1

    def ticket_expired(self) -> None:
        self.events["gone"] += 1
        self.events["purged"] += 1

    def bytes_moved(self, backend: str, operation: str, count: int) -> None:
        self.moved += count

    def operation_finished(self, backend: str, operation: str, error: Optional[BaseException]) -> None:
        self.events["finished"] += 1


class Connection:
    """A connection that a test can look at."""

    def __init__(self, scheduler: Scheduler, number: int) -> None:
        self.scheduler = scheduler
        self.id = number
        self.client = "192.0.2.7"
        self.clock = NullClock()
        self.traceparent: Optional[str] = None
        self.encryption = "none"
        self.is_aborted = False
        self.is_left = False
        self.finishing: Optional[Steps] = None
        self._closers: list[Callable[[], None]] = []

    def activity(self) -> int:
        return 0

    def has_left(self) -> bool:
        return self.is_left

    def abort(self) -> None:
        self.scheduler.check(self.finishing is None, "what only waits for the storage was cut")
        self.is_aborted = True

    def on_close(self, callback: Callable[[], None]) -> None:
        self._closers.append(callback)

    def set_timeout(self, seconds: float) -> None:
        pass

    def stay_while(self, is_needed: Callable[[], bool]) -> None:
        pass

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()


class Disk(Backend):
    """A backend that knows who uses it."""

    name = "disk"

    def __init__(self, world: World, ticket: object) -> None:
        self.ticket = ticket
        self.writes = UnflushedWrites()
        self.is_interrupted = self.is_closing = self.is_closed = False
        # The thread that is between begin() and end().
        self.user: Optional[object] = None
        self._world = world

    def size(self) -> int:
        return 4096

    def readinto(self, offset: int, view: memoryview) -> int:
        raise NotImplementedError

    write = zero = flush = readinto  # type: ignore[assignment]

    def interrupt(self) -> None:
        message = "a closed disk is interrupted: its descriptor may be of another file"
        self._world.scheduler.check(not self.is_closed, message)
        self.is_interrupted = True

    def close(self) -> None:
        scheduler = self._world.scheduler
        scheduler.check(self.user in (None, scheduler.current), "a disk is closed under a request that uses it")
        scheduler.check(not self.is_closing, "a disk is closed twice")
        self.is_closing = True
        if scheduler.random.random() < 0.2:
            scheduler.sleep(5)
        scheduler.switch()
        self.is_closed = True


class Steps(Operation):
    """An operation that moves, stalls, fails or ends, as the dice say."""

    def __init__(
        self, world: World, connection: Connection, disk: Disk, transfer: transfers.Transfer, kind: str
    ) -> None:
        self.number = next(world.numbers)
        super().__init__(disk, world.scheduler.random.choice((0, 512)), 1024)
        self.name = kind  # type: ignore[misc]
        self.is_answering = kind == "read"  # type: ignore[misc]
        self.is_change = kind == "write"
        self.left_at: Optional[int] = None
        self._world = world
        self._connection = connection
        self._disk = disk
        self._transfer = transfer

    @property
    def is_step(self) -> bool:
        return self._connection.is_aborted or self._disk.is_interrupted

    def run(self) -> None:
        world, scheduler = self._world, self._world.scheduler
        self._check_older()
        world.active.append(self)
        try:
            for _ in range(scheduler.random.randrange(4)):
                scheduler.sleep(scheduler.random.choice((0, 0, 0.1, 1)))
                self._go_on()
                self.advance(10)
            fate = scheduler.random.random()
            if fate < 0.2:
                scheduler.wait("a client that stalls", lambda: self.is_step)
                self._go_on()
            elif fate < 0.3:
                raise errors.StorageError("use", "planted")
            elif fate < 0.4:
                self._connection.is_left = True
                self.left_at = len(scheduler.trace)
                scheduler.sleep(1)
                self._go_on()
            if self.is_change:
                self._finish()
        finally:
            world.active.remove(self)

    def _go_on(self) -> None:
        check = self._world.scheduler.check
        check(not self._disk.is_closing, "a disk is used that was closed")
        check(not self._transfer.is_drained, "something runs on what has ended")
        is_current = self._world.current is self._transfer
        check(is_current or self._transfer._books._state is not lease.State.OPEN, "something runs on what was replaced")
        if self.is_step:
            raise ConnectionResetError

    def _finish(self) -> None:
        """Only the storage still works: nothing cuts it."""
        with self._transfer._lock:
            if self.is_step or self._canceled:
                return
            self._is_finishing = True
            self._connection.finishing = self
        self._world.scheduler.sleep(self._world.scheduler.random.choice((0, 1, 8)))
        self._connection.finishing = None
        assert not self.is_step, "what only waits for the storage was interrupted"

    def _check_older(self) -> None:
        """No change begins before an older one of the same range has ended whose client had left."""
        if self.is_change:
            for other in self._world.active:
                is_older = other.is_change and other.left_at is not None and other._transfer is self._transfer
                overlaps = abs(other.offset - self.offset) < 1024
                assert not (is_older and overlaps and other.left_at < self._world.asked[self.number]), "a late change"


class World:
    """A store, and everything that is done to it."""

    def __init__(self, scheduler: Scheduler, **options: Any) -> None:
        self.scheduler = scheduler
        self.numbers = itertools.count()
        self.disks: list[Disk] = []
        self.active: list[Steps] = []
        self.begun = self.moved = self.adds = 0
        # When run() was called, by operation, in steps.
        self.asked: dict[int, int] = {}
        self.transfers: list[transfers.Transfer] = []
        self.tally = Tally()
        options = {"remove_grace": 2, "purge_after": 20, "tick_seconds": 0.25, **options}
        self.store = stores.Store(self._open, lambda: scheduler.now, observer=self.tally, **options)
        self.add()

    @property
    def current(self) -> Optional[transfers.Transfer]:
        return self.store._transfers.get(ID)

    def add(self) -> None:
        self.adds += 1
        number = len(self.transfers) + self.adds
        document = {"uuid": ID, "size": 4096, "url": "file:///disk", "ops": ["read", "write"], "timeout": 5}
        self.transfers.append(self.store.add({**document, "transfer_id": str(number)}))
        self.adds += 1

    def client(self) -> None:
        dice = self.scheduler.random
        connection = Connection(self.scheduler, next(self.numbers))
        for _ in range(dice.randrange(1, 4)):
            self._request(connection, dice.choice(("read", "write")))
            if connection.is_aborted or connection.is_left or dice.random() < 0.3:
                connection.close()
                connection = Connection(self.scheduler, next(self.numbers))
        connection.close()

    def _request(self, connection: Connection, kind: str) -> None:
        expected = (errors.NoSuchTicket, errors.OperationCanceled, errors.StorageError, errors.TooManyConnections)
        with contextlib.suppress(*expected, ConnectionResetError), self.store.use(ID, kind, connection) as opened:
            disk = opened.backend
            assert isinstance(disk, Disk)
            disk.user = self.scheduler.current
            operation = Steps(self, connection, disk, opened._transfer, kind)
            self.asked[operation.number] = len(self.scheduler.trace)
            try:
                opened.run(operation)
            finally:
                self.moved += operation.done
                self.begun += operation.done > 0
                disk.user = None

    def remover(self) -> None:
        self.scheduler.sleep(self.scheduler.random.choice((0, 0, 0.5, 3)))
        before, adds = self.current, self.adds
        timeout = self.scheduler.random.choice((0, 1, 60))
        try:
            self.store.remove(ID, timeout)
        except errors.TransferBusy as error:
            assert timeout, "without a wait nothing is raised"
            assert error.operations, "busy with nothing"
            return
        if self.tally.events["purged"]:
            return  # Forgotten long after it expired: no thread waits for the end of that.
        if before is not None and timeout and adds == self.adds and not adds % 2:
            assert before.is_drained, "removed, but not drained"
            mine = [disk for disk in self.disks if disk.ticket is before.ticket]
            assert all(disk.is_closed for disk in mine), "removed, but not closed"
            assert self.current is None
        elif before is not None:
            assert before._books._state is not lease.State.OPEN

    def replacer(self) -> None:
        self.scheduler.sleep(self.scheduler.random.choice((0, 0.5, 3)))
        before = self.current
        self.add()
        assert before is None or before is self.current or before._books._state is not lease.State.OPEN

    def extender(self) -> None:
        with contextlib.suppress(errors.NotFound):
            self.scheduler.sleep(self.scheduler.random.choice((0, 2)))
            self.store.extend(ID, {"timeout": self.scheduler.random.choice((0, 3))})

    def watcher(self) -> None:
        with contextlib.suppress(errors.NotFound):
            version = self.store.info(ID)["version"]
            seen = self.store.wait(ID, 5, version)
            assert seen["version"] >= version
        self.store.list()
        self.store.states()

    def end(self) -> None:
        """Stop, and look at what is left."""
        self.store.stop()
        self.scheduler.wait("the end of all disks", lambda: all(disk.is_closed for disk in self.disks))
        for transfer in self.transfers:
            self.scheduler.wait("the drain", lambda transfer=transfer: transfer.is_drained)
            assert transfer.describe_running() == []
            assert len(transfer._books.links) == 0, "a connection was not forgotten"
            assert not transfer.info()["last_error"] or "Internal" not in transfer.info()["last_error"]
        events = self.tally.events
        assert events["added"] - events["gone"] == len(self.store._transfers), events
        assert self.tally.moved == self.moved, "what moved was counted wrongly"
        assert events["finished"] >= self.begun

    def _open(self, ticket: object, line: lifeline.Lifeline, traceparent: Optional[str]) -> Disk:
        dice = self.scheduler.random
        wakes: list[bool] = []
        if dice.random() < 0.4:
            with line.waking(lambda: wakes.append(True)):
                self.scheduler.wait("the disk to open", lambda: bool(wakes), dice.choice((0.1, 1, 30)))
            line.check()
        if dice.random() < 0.1:
            raise errors.StorageError("open", "planted")
        disk = Disk(self, ticket)
        self.disks.append(disk)
        return disk


def tickets(scheduler: Scheduler, *names: str, **options: Any) -> None:
    """Run methods of a world together, with its watchdog."""
    world = World(scheduler, **options)
    world.store.start()
    together(scheduler, *(getattr(world, name) for name in names))
    world.end()


def remove(scheduler: Scheduler) -> None:
    """Remove a ticket while reads and writes begin, run and end."""
    tickets(scheduler, "client", "client", "remover")


def remove_twice(scheduler: Scheduler) -> None:
    """Two remove it at once, while another thread waits for changes."""
    tickets(scheduler, "client", "remover", "remover", "watcher")


def replace(scheduler: Scheduler) -> None:
    """Replace a ticket while it is used, and removed."""
    tickets(scheduler, "client", "client", "replacer", "remover")


def replace_twice(scheduler: Scheduler) -> None:
    """Two replace it at once."""
    tickets(scheduler, "client", "replacer", "replacer")


def expire(scheduler: Scheduler) -> None:
    """Let a ticket expire, and be purged, while it is used and extended."""
    tickets(scheduler, "client", "client", "extender", "watcher", purge_after=scheduler.random.choice((0.1, 3)))


def crowd(scheduler: Scheduler) -> None:
    """More connections than are permitted: what stalls gives way."""
    tickets(scheduler, "client", "client", "client", "client", max_connections=2)


# --- Moving bytes -----------------------------------------------------------------------------------------------------

STEP = 4


class Planted(Exception):
    """What a scenario lets happen."""


class Dice:
    """Fails now and then, or not at all; remembers whether."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.chance = scheduler.random.choice((0, 0, 0.1, 0.3))
        self.has_failed = False

    def roll(self) -> None:
        self.scheduler.switch()
        if self.scheduler.random.random() < self.chance:
            self.has_failed = True
            raise Planted


def pieces(scheduler: Scheduler) -> tuple[bytes, list[tuple[int, int]], list[memoryview]]:
    """Return what is moved, its pieces, and slots."""
    count = scheduler.random.randrange(1, 9)
    data = bytes(range(1, count * STEP + 1))
    slots = [memoryview(bytearray(STEP)) for _ in range(scheduler.random.randrange(2, 5))]
    return data, [(offset, STEP) for offset in range(0, len(data), STEP)], slots


def is_alone(scheduler: Scheduler) -> bool:
    """Return True if all threads but this one have ended."""
    return all(task.is_over or task is scheduler.current for task in scheduler._tasks)


def read_ahead(scheduler: Scheduler) -> None:
    """Several readers, a sink, and a progress, each of which may fail."""
    data, todo, slots = pieces(scheduler)
    end = scheduler.random.choice((len(data), scheduler.random.randrange(len(data))))
    dice = Dice(scheduler)
    sent = bytearray()
    told = [0]

    def read(slot: memoryview, offset: int, length: int) -> memoryview:
        dice.roll()
        view = slot[: max(0, min(length, end - offset))]
        for position in range(len(view)):
            view[position] = data[offset + position]
            scheduler.switch()
        return view

    class Sink:
        def write(self, view: memoryview) -> None:
            before = bytes(view)
            dice.roll()
            assert bytes(view) == before == data[len(sent) : len(sent) + len(view)], "a slot was used twice"
            sent.extend(view)

    def progress(count: int) -> None:
        dice.roll()
        told[0] += count

    try:
        count = ring.read_ahead(read, todo, slots, Sink(), progress)  # type: ignore[arg-type]
    except Planted:
        assert dice.has_failed
    else:
        assert count == told[0] == len(sent) == end
    assert is_alone(scheduler), "a reader goes on"


def write_behind(scheduler: Scheduler) -> None:
    """Several writers, a source, and a progress, each of which may fail."""
    data, todo, slots = pieces(scheduler)
    end = scheduler.random.choice((len(data), scheduler.random.randrange(len(data))))
    dice = Dice(scheduler)
    disk = bytearray(len(data))
    position = total = 0
    is_telling = False

    class Source:
        def readinto(self, view: memoryview) -> int:
            nonlocal position
            dice.roll()
            count = min(len(view), end - position, scheduler.random.randrange(1, STEP + 1))
            for number in range(count):
                view[number] = data[position + number]
                scheduler.switch()
            position += count
            return count

    def write(offset: int, view: memoryview) -> None:
        dice.roll()
        for number in range(len(view)):
            disk[offset + number] = view[number]
            scheduler.switch()

    def progress(count: int) -> None:
        nonlocal total, is_telling
        assert not is_telling, "two threads tell at once"
        is_telling = True
        dice.roll()
        total += count
        assert disk[:total] == data[:total], "told before it was written"
        is_telling = False

    try:
        count = ring.write_behind(write, todo, slots, Source(), progress)  # type: ignore[arg-type]
    except Planted:
        assert dice.has_failed
    else:
        assert not dice.has_failed, "a failure is lost"
        assert count == total == end
        assert disk[:end] == data[:end]
    assert is_alone(scheduler), "a writer goes on"


def pool(scheduler: Scheduler) -> None:
    """No thread gets a buffer that another one has."""
    lender = buffers.Pool(16, max_idle=2)
    lent: list[memoryview] = []

    def user() -> None:
        for _ in range(3):
            with lender.lend(scheduler.random.randrange(1, 3)) as views:
                assert not any(view is other for view in views for other in lent), "lent twice"
                lent.extend(views)
                scheduler.switch()
                for view in views:
                    del lent[next(number for number, other in enumerate(lent) if other is view)]

    together(scheduler, user, user, user)
    assert len(lender._idle) <= 2, "more is kept than should be"


def blocks(scheduler: Scheduler) -> None:
    """Writers of parts of blocks are alone in them; those of whole blocks need not be."""
    disk = shared.Shared()
    parts: Counter[int] = Counter()
    wholes: Counter[int] = Counter()

    def writer() -> None:
        for _ in range(3):
            offset = scheduler.random.randrange(0, 3 * 4096, 512)
            length = scheduler.random.randrange(512, 2 * 4096, 512)
            touched = set(range(offset // 4096, (offset + length - 1) // 4096 + 1))
            whole = {block for block in touched if offset <= block * 4096 and (block + 1) * 4096 <= offset + length}
            with disk.locked(offset, length):
                parts.update(touched - whole)
                wholes.update(whole)
                scheduler.switch()
                assert all(parts[block] == 1 and not wholes[block] for block in touched - whole), "not alone"
                assert not any(parts[block] for block in whole), "another one writes a part"
                parts.subtract(touched - whole)
                wholes.subtract(whole)

    together(scheduler, writer, writer, writer)
    assert not disk._claims


# --- Copies -----------------------------------------------------------------------------------------------------------


def queue(scheduler: Scheduler) -> None:
    """Everything that is put is taken once, and in order; after close() no thread waits."""
    line: queues.Queue[int] = queues.Queue(scheduler.random.choice((None, 1, 3)))
    taken: list[list[int]] = [[], []]
    will_close = scheduler.random.random() < 0.3
    has_closed = [0]

    def producer() -> None:
        try:
            for number in range(8):
                line.put(number)
            line.complete()
        except queues.Closed:
            has_closed[0] += 1

    def consumer(found: list[int]) -> None:
        try:
            while True:
                item = line.get(block=scheduler.random.random() < 0.8)
                if item is not None:
                    found.append(item)
                elif line._is_complete and not line._items:
                    return
        except queues.Closed:
            has_closed[0] += 1

    def first() -> None:
        consumer(taken[0])

    def second() -> None:
        consumer(taken[1])

    def closer() -> None:
        if will_close:
            line.close()

    together(scheduler, producer, first, second, closer)
    assert all(found == sorted(found) for found in taken), "out of order"
    both = sorted(taken[0] + taken[1])
    assert both == sorted(set(both)), "taken twice"
    assert has_closed[0] or both == list(range(8)), "lost"


class Lane:
    """A lane on which tasks fail, hang until they are interrupted, or end. Some get short ones."""

    def __init__(self, copy: Copy, moved: Callable[[int], None]) -> None:
        self.longest = copy.scheduler.random.choice((4, 10))
        self.copy = copy
        self.moved = moved
        self.pending: deque[plan.Task] = deque()
        self.unsafe: list[plan.Task] = []
        self.is_interrupted = False
        self.closed = 0
        copy.lanes.append(self)
        copy.roll()

    @property
    def is_busy(self) -> bool:
        return bool(self.pending)

    @property
    def is_full(self) -> bool:
        return len(self.pending) >= 2

    def begin(self, task: plan.Task) -> None:
        self.copy.roll()
        self._hang()
        self.pending.append(task)
        self.moved(task.length)

    def finish(self) -> plan.Task:
        self.copy.roll()
        self._hang()
        task = self.pending.popleft()
        self.unsafe.append(task)
        return task

    def _hang(self) -> None:
        if self.copy.scheduler.random.random() < self.copy.chance / 2:
            # After a failure of another one this must be interrupted: nothing else would end it soon.
            has_failed = self.copy.copier is not None and self.copy.copier._error is not None
            self.copy.scheduler.wait("an interrupt", lambda: self.is_interrupted, None if has_failed else 30)
            raise self.copy.failure("lost" if self.is_interrupted else "timed out")

    def flush(self) -> None:
        assert not self.pending, "a flush while tasks are under way"
        self.copy.roll()
        self.copy.safe |= places(self.unsafe)
        self.unsafe.clear()

    def recover(self, error: errors.Error) -> list[plan.Task]:
        if not isinstance(error, errors.BackendUnavailable) or self.is_interrupted:
            raise error
        tasks = list(self.pending)
        self.pending.clear()
        return tasks

    def interrupt(self) -> None:
        self.copy.scheduler.switch()
        self.is_interrupted = True

    def close(self) -> None:
        self.copy.scheduler.switch()
        self.closed += 1


def numbered(number: int) -> plan.Task:
    """Return the task of this number: each fifth is nothing to do."""
    action = plan.SKIP if number % 5 == 4 else plan.COPY
    return plan.Task(action, number * 10, 10, ((number * 10, 10),))


def places(tasks: Iterable[plan.Task]) -> set[int]:
    """Return the position of each byte of the tasks."""
    return {place for task in tasks for place in range(task.start, task.start + task.length)}


class Copy:
    """A copy, and what came of it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.chance = scheduler.random.choice((0, 0.02, 0.1, 0.3))
        self.lanes: list[Lane] = []
        self.safe: set[int] = set()
        self.noted: set[int] = set()
        self.counted = 0
        self.copier: Optional[engine.Copier] = None
        self.failures: list[BaseException] = []

    def failure(self, text: str) -> errors.Error:
        kind = self.scheduler.random.choice((errors.BackendUnavailable, errors.StorageError))
        error = kind("copy", text)
        self.failures.append(error)
        return error

    def roll(self) -> None:
        self.scheduler.switch()
        if self.scheduler.random.random() < self.chance:
            raise self.failure("planted")

    def record(self, tasks: Any) -> None:
        done = places(tasks)
        assert done <= self.safe, "noted before it was flushed"
        self.noted |= done

    def update(self, count: int) -> None:
        self.scheduler.switch()
        self.counted += count

    def tasks(self, count: int) -> Iterator[plan.Task]:
        for number in range(count):
            yield numbered(number)
            if self.scheduler.random.random() < self.chance / 4:
                raise self.failure("list")


def copy(scheduler: Scheduler) -> None:
    """Workers that fail, recover, hang and are cut; a list that fails."""
    state = Copy(scheduler)
    count = scheduler.random.randrange(1, 12)
    throttle = pace.Throttle(scheduler.random.choice((None, 20.0)), lambda: scheduler.now)
    state.copier = copier = engine.Copier(
        lambda moved: Lane(state, moved),
        scheduler.random.randrange(1, 4),
        state,  # type: ignore[arg-type]
        throttle=throttle,
        retries=2,
        journal=scheduler.random.choice((state, None)),
        listers=scheduler.random.randrange(3),
        checkpoint=25,
        listed_limit=scheduler.random.choice((2, 100)),
        now=lambda: scheduler.now,
    )
    try:
        copier.run(state.tasks(count))
    except errors.Error:
        assert state.failures, "failed without a reason"
    else:
        every = places(task for task in map(numbered, range(count)) if task.action == plan.COPY)
        assert state.safe == every, "good, and not everything is safe"
        assert copier._journal is None or state.noted == every
        assert state.counted == 10 * count, "counted wrongly"
    assert is_alone(scheduler), "a worker goes on"
    # A lane whose making failed is not ours to close.
    assert not copier._lanes
    assert all(lane.closed == 1 for lane in state.lanes if lane.closed or lane.pending), "a lane was left open"


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.__name__: scenario
        for scenario in (
            *(remove, remove_twice, replace, replace_twice, expire, crowd),
            *(read_ahead, write_behind, pool, blocks, queue, copy),
        )
    }
)
