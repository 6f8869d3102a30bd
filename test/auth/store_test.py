"""All tickets: adding, finding, removing, purging; the watchdog; many threads at once."""

import contextlib
import gc
import logging
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.clock import FakeClock
from fakes.connections import Backends, FakeConnection, Runner
from fakes.waiting import DEADLINE, wait_until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from ovirt_imageio import errors
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.store import Store
from ovirt_imageio.ops import operations

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"


def document(uuid=UUID, **changes):
    return {"uuid": uuid, "size": 2**30, "url": "file:///disk", "ops": ["write"], "timeout": 300, **changes}


class Recorder(TicketObserver):
    """Keeps the names of what happened to tickets."""

    def __init__(self):
        self.events = []

    def ticket_added(self):
        self.events.append("added")

    def ticket_removed(self):
        self.events.append("removed")

    def ticket_expired(self):
        self.events.append("expired")


@pytest.fixture
def clock():
    return FakeClock(1000)


@pytest.fixture
def backends():
    return Backends()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def store(clock, backends, recorder):
    return Store(backends, clock, purge_after=600, observer=recorder)


@pytest.fixture
def runner():
    with Runner() as runner:
        yield runner


def begin(runner, store, name="write", uuid=UUID):
    connection = FakeConnection()
    return connection, runner.start(store.authorize(uuid, "read"), connection, name=name)


def open_backend(store, connection):
    """Use the disk once, so that the connection has a backend; return that."""
    with store.use(UUID, "read", connection) as disk:
        return disk.backend


# --- Add, look, extend ---


def test_add(store, recorder):
    store.add(document(), url_id=UUID)
    assert store.info(UUID)["uuid"] == UUID
    assert store.authorize(UUID, "write").ticket.uuid == UUID
    assert recorder.events == ["added"]


def test_add_bad(store, recorder):
    with pytest.raises(errors.InvalidTicket):
        store.add(document(size=-1))
    with pytest.raises(errors.InvalidTicket):
        store.add(document(), url_id="other")
    assert store.list() == []
    assert recorder.events == []


def test_defaults_and_checks_are_arguments(backends):
    seen = []
    store = Store(backends, default_inactivity_timeout=17, check_url=seen.append)
    store.add(document())
    assert store.info(UUID)["inactivity_timeout"] == 17
    assert seen == ["file:///disk"]


def test_unknown(store):
    with pytest.raises(errors.NotFound):
        store.info("unknown")
    with pytest.raises(errors.NotFound):
        store.extend("unknown", {"timeout": 1})
    with pytest.raises(errors.NotFound):
        store.wait("unknown", 1)
    with pytest.raises(errors.NoSuchTicket):
        store.authorize("unknown", "read")


def test_extend_is_checked_before_the_ticket_is_looked_for(store):
    with pytest.raises(errors.InvalidTicket):
        store.extend("unknown", {"timeout": -1})


def test_extend(store, clock):
    store.add(document())
    clock.advance(500)
    with pytest.raises(errors.NoSuchTicket):
        store.authorize(UUID, "read")
    store.extend(UUID, {"timeout": 100})
    store.authorize(UUID, "read")


def test_wait(store):
    store.add(document())
    version = store.info(UUID)["version"]
    store.extend(UUID, {"timeout": 100})
    assert store.wait(UUID, 1000, since=version)["remaining"] == 100


def test_list_tells_no_secrets(store):
    store.add(document(transfer_id="one"))
    store.add(document(uuid="tiny", url="https://host/images/tiny", transfer_id="two"))
    one, two = store.list()
    assert "uuid" not in one
    assert (one["uuid_prefix"], one["transfer_id"], one["url"]) == (UUID[:8], "one", "file:///disk")
    assert (two["uuid_prefix"], two["url"]) == ("ti", "https://host/images/ti...")


@pytest.mark.parametrize(
    "text, found",
    [
        ("abc", ["abc"]),  # The id itself, though another one begins with it.
        ("disk", ["abc-1", "xyz"]),  # Transfer ids, though an id begins with it.
        ("ab", ["abc", "abc-1"]),
        ("disk-", ["disk-2"]),
        ("dis", ["abc-1", "xyz", "disk-2"]),
        ("backup/mon", ["abc"]),
        ("c", []),
        ("", ["abc", "abc-1", "xyz", "disk-2"]),
    ],
)
def test_find(store, text, found):
    for uuid, transfer_id in [("abc", "backup/monday"), ("abc-1", "disk"), ("xyz", "disk"), ("disk-2", "other")]:
        store.add(document(uuid=uuid, transfer_id=transfer_id))
    assert [info["uuid"] for info in store.find(text)] == found


def test_log_tells_no_secrets(store, runner, clock, caplog):
    caplog.set_level(logging.DEBUG)
    store.add(document(url=f"https://host/images/{UUID}"))
    with pytest.raises(errors.NotFound):
        store.info(UUID[:35])
    begin(runner, store, "read")
    store.extend(UUID, {"timeout": 0})
    store.tick()
    store.add(document())
    store.remove(UUID, 10)
    store.remove(UUID, 10)
    assert "ADD" in caplog.text
    assert UUID not in caplog.text


def test_states(store, runner, clock):
    assert store.states() == {}
    for name in "abc":
        store.add(document(uuid=name * 4))
    _, run = begin(runner, store, uuid="aaaa")
    assert store.states() == {"active": 1, "idle": 2}
    run.operation.end()


# --- Replace ---


def test_replace_cancels_the_old_one(store, runner, backends, recorder):
    store.add(document(transfer_id="old"))
    idle = FakeConnection()
    open_backend(store, idle)
    connection, run = begin(runner, store, "read")
    store.add(document(transfer_id="new"))
    assert connection.is_aborted
    assert isinstance(run.wait(), errors.OperationCanceled)
    backends.wait_closed()
    assert store.info(UUID)["transfer_id"] == "new"
    # The connections go on, with the new ticket.
    open_backend(store, idle)
    assert store.info(UUID)["connections"] == 1
    idle.close()
    backends.wait_closed()
    assert recorder.events == ["added", "removed", "added"]


def test_replaced_write_ends_though_nobody_can_see_it(store, runner):
    store.add(document())
    connection, run = begin(runner, store)
    store.add(document())
    store.tick()
    assert connection.is_aborted
    assert isinstance(run.wait(), errors.OperationCanceled)


def test_versions_do_not_repeat(store):
    store.add(document())
    version = store.info(UUID)["version"]
    store.add(document())
    assert store.info(UUID)["version"] > version


# --- Remove ---


def test_remove_idle(store, backends, recorder):
    store.add(document())
    connection = FakeConnection()
    open_backend(store, connection)
    store.remove(UUID, 0)
    backends.wait_closed()
    assert store.list() == []
    assert recorder.events == ["added", "removed"]
    connection.close()


def test_two_remove_it_at_once(backends, clock):
    """None of them hears that it is gone before it is."""
    entered = threading.Semaphore(0)
    is_gone = threading.Event()

    def end(ticket):
        entered.release()
        assert is_gone.wait(DEADLINE)

    store = Store(backends, clock, on_gone=end)
    store.add(document())
    with ThreadPoolExecutor(2) as threads:
        try:
            removals = [threads.submit(store.remove, UUID, 1) for _ in range(2)]
            for _ in removals:
                assert entered.acquire(timeout=DEADLINE)
            assert not any(removal.done() for removal in removals)
        finally:
            is_gone.set()
    with pytest.raises(errors.NotFound):
        store.info(UUID)


def test_remove_unknown(store, recorder):
    store.remove("unknown", 0)
    assert recorder.events == []


def test_remove_cuts_reads(store, runner):
    store.add(document())
    runs = [begin(runner, store, "read")[1] for _ in range(8)]
    store.remove(UUID, DEADLINE)
    assert store.list() == []
    assert all(isinstance(run.wait(), errors.OperationCanceled) for run in runs)


def test_remove_times_out(store, runner, clock):
    store.add(document(transfer_id="transfer-1"))
    _, run = begin(runner, store)
    run.operation.finishing()
    clock.advance(5)
    with pytest.raises(errors.TransferBusy) as e:
        store.remove(UUID, 0.01)
    assert "Transfer transfer-1 is still busy" in str(e.value)
    assert "write of 1024 bytes at 0, 0 done" in str(e.value)
    assert "for 5 s" in str(e.value)
    assert UUID not in str(e.value)
    # It stays, canceled.
    assert store.info(UUID)["canceled"]
    with pytest.raises(errors.NoSuchTicket):
        store.authorize(UUID, "read")
    run.operation.end()
    assert run.wait() is None
    store.remove(UUID, DEADLINE)
    assert store.list() == []


def test_what_ends_with_the_timeout_is_not_busy(store):
    """Nothing could be named that still runs."""
    transfer = store.add(document())
    wait_drained = transfer.wait_drained
    # As if it had ended just after the wait.
    transfer.wait_drained = lambda seconds: not wait_drained(seconds)
    store.remove(UUID, 0.01)
    assert store.list() == []


def test_remove_without_waiting(store, runner, recorder):
    store.add(document())
    _, run = begin(runner, store)
    store.remove(UUID, 0)
    assert store.info(UUID)["canceled"]
    assert store.info(UUID)["active"]
    run.operation.end()
    run.wait()
    info = store.info(UUID)
    assert info["canceled"]
    assert not info["active"]
    store.remove(UUID, 0)
    assert store.list() == []
    assert recorder.events == ["added", "removed"]


def test_concurrent_removals(store, runner, recorder):
    store.add(document())
    _, run = begin(runner, store)
    run.operation.finishing()
    removers = [threading.Thread(target=store.remove, args=(UUID, DEADLINE)) for _ in range(4)]
    for remover in removers:
        remover.start()
    run.operation.end()
    for remover in removers:
        remover.join(DEADLINE)
    assert store.list() == []
    assert recorder.events == ["added", "removed"]


def test_removal_of_a_replaced_ticket_leaves_the_new_one(store, runner):
    store.add(document(transfer_id="old"))
    _, run = begin(runner, store)
    run.operation.finishing()
    remover = threading.Thread(target=store.remove, args=(UUID, DEADLINE))
    remover.start()
    while not store.info(UUID)["canceled"]:
        os.sched_yield()
    store.add(document(transfer_id="new"))
    run.operation.end()
    remover.join(DEADLINE)
    assert store.info(UUID)["transfer_id"] == "new"


def test_clear(store, runner, backends):
    for name in "abc":
        store.add(document(uuid=name))
    connection, run = begin(runner, store, "read", uuid="b")
    store.clear(DEADLINE)
    assert connection.is_aborted
    assert isinstance(run.wait(), errors.OperationCanceled)
    assert store.list() == []
    backends.wait_closed()


def test_clear_with_a_busy_one(store, runner):
    store.add(document(uuid="a"))
    store.add(document(uuid="b"))
    _, run = begin(runner, store, uuid="b")
    run.operation.finishing()
    store.clear()
    [info] = store.list()
    assert info["canceled"]
    with pytest.raises(errors.TransferBusy):
        store.clear(0.01)
    run.operation.end()
    run.wait()
    store.clear(DEADLINE)
    assert store.list() == []


# --- The watchdog ---


def test_purge(store, clock, recorder, backends):
    store.add(document())
    connection = FakeConnection()
    open_backend(store, connection)
    clock.advance(300 + 599)
    store.tick()
    assert store.info(UUID)["remaining"] == 0
    clock.advance(1)
    store.tick()
    assert store.list() == []
    backends.wait_closed()
    assert recorder.events == ["added", "expired"]
    with pytest.raises(errors.NotFound):
        store.extend(UUID, {"timeout": 1})


def test_purge_is_planned_anew(store, clock, recorder):
    for name in ("longer", "shorter", "touched", "replaced"):
        store.add(document(uuid=name))
    clock.advance(100)
    store.extend("longer", {"timeout": 1000})
    store.extend("shorter", {"timeout": 0})
    store.authorize("touched", "read").touch()
    store.add(document(uuid="replaced"))
    left = {"longer": 1600, "shorter": 600, "touched": 900, "replaced": 900}
    for seconds in sorted(set(left.values())):
        for end in (seconds - 1, seconds):
            clock.advance(1100 + end - clock.now)
            store.tick()
            assert {info["transfer_id"] for info in store.list()} == {
                f"(ticket/{name[: len(name) // 2]})" for name, last in left.items() if last > end
            }
    assert len(store._purges) == 0


def test_idle_tickets_cost_the_watchdog_nothing(backends, runner):
    """With 20,000 of them it took a fourth of a processor. Each look at a ticket asks for the time."""
    asked = []

    def clock():
        asked.append(True)
        return 1000.0

    store = Store(backends, clock)
    for number in range(1000):
        store.add(document(uuid=f"ticket-{number}"))
    _, run = begin(runner, store, uuid="ticket-7")
    asked.clear()
    store.tick()
    assert len(asked) < 5
    run.operation.end()
    run.wait()
    store.tick()
    asked.clear()
    store.tick()
    assert len(asked) == 1  # When to purge.


@pytest.fixture
def impatient(clock, backends):
    return Store(backends, clock, purge_after=600, close_patience=0.01)


@pytest.fixture
def hanging(backends, impatient):
    """A ticket and its idle connection: closing its disk hangs, until the event that this is."""
    go_on = threading.Event()
    impatient.add(document())
    backend = open_backend(impatient, FakeConnection())
    close = backend.close
    backend.close = lambda: (go_on.wait(DEADLINE), close())
    yield go_on
    go_on.set()
    backends.wait_closed()


def test_storage_that_hangs_does_not_keep_us_from_purging(hanging, impatient, clock):
    clock.advance(300 + 600)
    impatient.tick()
    assert impatient.list() == []
    assert not hanging.is_set()


def test_storage_that_hangs_delays_only_its_own_removal(hanging, impatient):
    with pytest.raises(errors.TransferBusy, match=r"closing the disk \(for 0 s\)"):
        impatient.remove(UUID, 0.01)
    with pytest.raises(errors.TransferBusy):
        impatient.clear(0.01)
    assert impatient.info(UUID)["active"]
    hanging.set()
    impatient.remove(UUID, DEADLINE)
    assert impatient.list() == []


@pytest.mark.parametrize("act", [Store.stop, lambda store: store.remove(UUID, 0), lambda store: store.add(document())])
def test_storage_that_hangs_keeps_us_only_so_long(hanging, impatient, act):
    act(impatient)
    assert not hanging.is_set()


def test_watchdog_aborts_what_stands_still(clock, backends, runner):
    with Store(backends, clock, tick_seconds=0.01) as store:
        store.add(document())
        connection, run = begin(runner, store)
        clock.advance(301)
        assert isinstance(run.wait(), errors.OperationCanceled)
        assert connection.is_aborted


def test_watchdog_ends_the_grace(backends, runner):
    with Store(backends, remove_grace=0.01, tick_seconds=0.01) as store:
        store.add(document())
        _, run = begin(runner, store)
        store.remove(UUID, DEADLINE)
        assert isinstance(run.wait(), errors.OperationCanceled)


def test_stop_cuts_everything(backends, runner):
    with Store(backends) as store:
        store.add(document())
        connection, run = begin(runner, store)
    assert isinstance(run.wait(), errors.ServiceStops)
    assert connection.is_aborted
    backends.wait_closed()


# --- A model ---


TIMEOUT = 50
GRACE = 5
PURGE = 100


class Model:
    """What must be true of one ticket."""

    def __init__(self, now):
        self.expires = now + TIMEOUT
        self.runs = []
        # When the writes of a canceled ticket are cut; None while it is open.
        self.grace_ends = None
        # They were asked to end: they do so with their next step.
        self.is_asked = False

    @property
    def is_canceled(self):
        return self.grace_ends is not None

    def touch(self, now):
        self.expires = max(self.expires, now + TIMEOUT)


class Machine(RuleBasedStateMachine):
    """Random sequences of everything that can be done to two tickets, against their models."""

    ids = st.sampled_from(["one-ticket", "two-ticket"])
    runs = Bundle("runs")

    def __init__(self):
        super().__init__()
        self.clock = FakeClock(1000)
        self.backends = Backends()
        self.store = Store(self.backends, self.clock, remove_grace=GRACE, purge_after=PURGE)
        self.stack = contextlib.ExitStack()
        self.runner = self.stack.enter_context(Runner())
        self.models = {}
        self.connections = []

    def teardown(self):
        self.store.stop()
        self.stack.close()
        for connection in self.connections:
            connection.close()
        self.backends.wait_closed()

    def is_usable(self, uuid):
        model = self.models.get(uuid)
        return model is not None and not model.is_canceled and model.expires > self.clock.now

    def find(self, started):
        """Return the model of the ticket that the run belongs to, if both are still there."""
        uuid, run = started
        model = self.models.get(uuid)
        return model if model is not None and run in model.runs else None

    @rule(uuid=ids)
    def add(self, uuid):
        self.store.add(document(uuid=uuid, timeout=TIMEOUT))
        self.models[uuid] = Model(self.clock.now)

    @rule(uuid=ids, timeout=st.integers(0, 100))
    def extend(self, uuid, timeout):
        if uuid not in self.models:
            with pytest.raises(errors.NotFound):
                self.store.extend(uuid, {"timeout": timeout})
            return
        self.store.extend(uuid, {"timeout": timeout})
        self.models[uuid].expires = self.clock.now + timeout

    @rule(uuid=ids)
    def authorize(self, uuid):
        if self.is_usable(uuid):
            self.store.authorize(uuid, "write")
        else:
            with pytest.raises(errors.NoSuchTicket):
                self.store.authorize(uuid, "write")

    @rule(target=runs, uuid=ids)
    def begin(self, uuid):
        if not self.is_usable(uuid):
            return multiple()
        connection, run = begin(self.runner, self.store, "write", uuid)
        self.connections.append(connection)
        self.models[uuid].runs.append(run)
        self.models[uuid].touch(self.clock.now)
        return uuid, run

    @rule(started=runs, count=st.integers(1, 100))
    def move(self, started, count):
        model = self.find(started)
        if model is None:
            return
        uuid, run = started
        run.operation.step(count)
        if model.is_asked:
            assert isinstance(run.wait(), errors.OperationCanceled)
            model.runs.remove(run)
            return
        # Progress counts from when it is looked at: look now, so that the model knows when.
        self.store.info(uuid)
        model.touch(self.clock.now)

    @rule(started=consumes(runs))
    def end(self, started):
        model = self.find(started)
        if model is None:
            return
        _, run = started
        run.operation.end()
        assert run.wait() is None
        model.runs.remove(run)
        if not model.is_asked:
            model.touch(self.clock.now)

    @rule(uuid=ids)
    def remove(self, uuid):
        self.store.remove(uuid, 0)
        model = self.models.get(uuid)
        if model is None:
            return
        if not model.runs:
            del self.models[uuid]
        elif not model.is_canceled:
            model.grace_ends = self.clock.now + GRACE
        elif model.grace_ends <= self.clock.now:
            model.is_asked = True

    @rule()
    def tick(self):
        """Twice: the first one asks, the second one cuts."""
        for uuid, model in list(self.models.items()):
            if not model.runs and self.clock.now - model.expires >= PURGE:
                del self.models[uuid]
        self.store.tick()
        self.store.tick()
        for model in self.models.values():
            ends = model.grace_ends if model.is_canceled else model.expires
            if ends <= self.clock.now:
                for run in model.runs:
                    assert isinstance(run.wait(), errors.OperationCanceled)
                model.runs.clear()

    @rule(seconds=st.integers(0, 160))
    @precondition(lambda self: self.models)
    def pass_time(self, seconds):
        self.clock.advance(seconds)

    @invariant()
    def agree(self):
        assert len(self.store.list()) == len(self.models)
        for uuid, model in self.models.items():
            info = self.store.info(uuid)
            assert info["canceled"] is model.is_canceled
            assert info["active"] is bool(model.runs)
            assert info["expires"] == model.expires


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


# --- Many threads ---


@pytest.mark.slow
def test_many_threads_lose_and_leak_nothing(backends):
    ids = [f"ticket-{n}" for n in range(4)]
    # Each thread does this many: how long that takes depends on the machine, and none may starve.
    rounds = 1000
    failures = []
    used = [0] * 16
    # What others left behind must not go meanwhile.
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    threads_before = threading.active_count()

    def work(number):
        dice = random.Random(number)
        connection = FakeConnection()
        try:
            while used[number] < rounds:
                uuid = dice.choice(ids)
                action = dice.random()
                with contextlib.suppress(errors.NoSuchTicket, errors.NotFound, errors.OperationCanceled):
                    if action < 0.1:
                        store.add(document(uuid=uuid))
                    elif action < 0.2:
                        store.remove(uuid, DEADLINE)
                    elif action < 0.3:
                        store.extend(uuid, {"timeout": 100})
                    elif action < 0.4:
                        store.info(uuid)
                    elif action < 0.45:
                        connection.close()
                        connection = FakeConnection()
                    else:
                        with store.use(uuid, "write", connection) as disk:
                            disk.run(operations.Zero(disk.backend, dice.randrange(1000), 10))
                        used[number] += 1
        except Exception as e:
            failures.append(e)
        finally:
            connection.close()

    with Store(backends, remove_grace=0) as store:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        store.clear(DEADLINE)
        assert store.list() == []
    assert failures == []
    assert used == [rounds] * 16
    backends.wait_closed()
    assert [backend.closed for backend in backends.opened] == [1] * len(backends.opened)
    wait_until(lambda: threading.active_count() == threads_before)
    assert len(os.listdir("/proc/self/fd")) == descriptors


# --- A restart of the service ---


@pytest.fixture
def other(backends, recorder):
    """The store of the next process, whose clock tells another time."""
    return Store(backends, FakeClock(77), purge_after=600, observer=recorder, check_url=refuse_gone)


def refuse_gone(url):
    if "gone" in url:
        raise errors.InvalidValue("url", url, "a disk that is there")


def hand_over(store, other, clock):
    store.stop()
    other.resume([record.describe() for record in store.record(clock())])


def test_tickets_go_on(store, other, clock, recorder):
    store.add(document())
    store.add(document("b"))
    store.remove("b", 0)
    hand_over(store, other, clock)
    assert recorder.events == ["added", "added", "removed", "added"]
    assert other.info(UUID)["remaining"] == 300
    with other.use(UUID, "write", FakeConnection()) as disk:
        assert disk.backend


def test_a_ticket_that_was_removed_while_we_stopped_does_not_go_on(store, other, clock):
    """As the control service is the last one to go."""
    store.add(document())
    store.add(document("b"))
    store.stop()
    store.remove(UUID, 0)
    store.add(document("c"))
    hand_over(store, other, clock)
    assert len(other.list()) == 2
    assert other.find(UUID) == []


def test_news_after_the_restart(store, other, clock):
    store.add(document())
    store.extend(UUID, {"timeout": 100})
    seen = store.info(UUID)["version"]
    hand_over(store, other, clock)
    assert other.wait(UUID, 0, since=seen)["version"] > seen


def test_tickets_that_went_on_are_purged(store, other, clock):
    store.add(document())
    hand_over(store, other, clock)
    other._clock.advance(900)
    other.tick()
    assert other.list() == []


def test_a_ticket_that_is_there_stays(store, other, clock):
    store.add(document())
    other.add(document(size=512))
    hand_over(store, other, clock)
    assert other.info(UUID)["size"] == 512


def test_a_ticket_that_cannot_go_on(store, other, clock, caplog):
    store.add(document(url=f"nbd:unix:/gone/{UUID}"))
    store.add(document("b"))
    hand_over(store, other, clock)
    assert len(other.list()) == 1
    assert "Cannot go on with a ticket after the restart: its url is not a disk that is there" in caplog.text
    assert UUID not in caplog.text
