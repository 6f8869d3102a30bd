"""What is permitted, what is cut, and what is told, without threads: operations are steps of the test."""

import dataclasses
import logging

import pytest
from fakes.clock import FakeClock
from fakes.connections import FakeBackend, FakeConnection, Steps

from ovirt_imageio import errors
from ovirt_imageio.auth.books import Books
from ovirt_imageio.auth.news import News
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.ticket import MAX_SECONDS, Changes, parse

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"


class Held:
    """A lock that is always held."""

    def acquire(self, *_):
        return True

    def release(self):
        pass

    def locked(self):
        return True


class Observer(TicketObserver):
    """Keeps what ended."""

    def __init__(self):
        self.finished = []

    def operation_finished(self, backend, operation, error):
        self.finished.append((operation, error))


class Desk:
    """Books, and a clock that tells them the time."""

    def __init__(self, max_connections=128, **changes):
        document = {"uuid": UUID, "size": 2**30, "url": "file:///disk", "ops": ["write"], "timeout": 300, **changes}
        self.clock = FakeClock(1000)
        news = News(Held(), iter(range(1, 1000)))
        self.observer = Observer()
        self.books = Books(parse(document), self.now, news, self.observer, max_connections)

    @property
    def now(self):
        return self.clock.now

    def enter(self, right="write", connection=None):
        """Begin a request over a connection, whose backend is opened."""
        link, _ = self.books.enter(right, connection or FakeConnection(), self.now)
        if link.backend is None:
            self.books.begin_opening(link, self.now)
            self.books.note_opened(link, FakeBackend())
            self.books.links.end_opening(link)
        return link

    def begin(self, name="write", offset=0):
        """Begin an operation over a new connection; it moves when the test says so."""
        link = self.enter("read")
        running, _ = self.books.begin(Steps(link.connection, offset, name), link, self.now)
        return running

    def end(self, running, error=None):
        backends = self.books.end(running, error, self.now)
        return backends + self.books.leave(running.link, self.now)

    def info(self):
        return self.books.info(self.now)

    def authorize(self, right="read"):
        self.books.authorize(right, self.now)

    def tick(self, seconds=0):
        self.clock.advance(seconds)
        return self.books.tick(self.now)


@pytest.fixture
def desk():
    return Desk(transfer_id="transfer-1")


# --- What is told ---


def test_fresh(desk):
    info = desk.info()
    assert info.pop("version") >= 1
    assert info == {
        "active": False,
        "age": 0,
        "canceled": False,
        "clients": [],
        "connections": 0,
        "kernel_tls": 0,
        "dirty": False,
        "expires": 1300,
        "idle_time": 0,
        "inactivity_timeout": 60,
        "last_error": None,
        "ops": ["write"],
        "rate": 0,
        "received": 0,
        "sent": 0,
        "remaining": 300,
        "size": 2**30,
        "sparse": False,
        "timeout": 300,
        "transfer_id": "transfer-1",
        "transferred": 0,
        "url": "file:///disk",
        "uuid": UUID,
    }


def test_file_name_only_when_set():
    assert "filename" not in Desk().info()
    assert Desk(filename="\u05d0").info()["filename"] == "\u05d0"


def test_transferred_only_for_one_direction():
    assert "transferred" in Desk(ops=["read"]).info()
    assert "transferred" not in Desk(ops=["read", "write"]).info()


def test_times_are_whole_and_fit_32_bits():
    desk = Desk(timeout=MAX_SECONDS)
    desk.clock.advance(0.75)
    info = desk.info()
    assert info["expires"] == MAX_SECONDS
    assert all(type(info[key]) is int for key in ("expires", "idle_time", "remaining", "timeout", "rate"))


def test_idle_time(desk):
    desk.clock.advance(7.9)
    assert desk.info()["idle_time"] == 7
    desk.books.touch(desk.now)
    assert desk.info()["idle_time"] == 0


def test_states(desk):
    assert desk.books.describe_state(desk.now) == "idle"
    running = desk.begin()
    assert desk.books.describe_state(desk.now) == "active"
    desk.end(running)
    desk.clock.advance(300)
    assert desk.books.describe_state(desk.now) == "expired"
    desk.books.cancel(desk.now, 0)
    assert desk.books.describe_state(desk.now) == "canceled"


def test_what_is_used(desk):
    desk.clock.advance(7.9)
    connection = FakeConnection()
    connection.encryption = "kernel"
    link = desk.enter(connection=connection)
    told = {key: desk.info()[key] for key in ("age", "canceled", "connections", "kernel_tls", "active", "idle_time")}
    assert told == {
        **{"age": 7, "canceled": False, "connections": 1, "kernel_tls": 1},
        **{"active": False, "idle_time": 7},
    }
    running, _ = desk.books.begin(Steps(connection), link, desk.now)
    desk.clock.advance(5)
    assert (desk.info()["active"], desk.info()["idle_time"]) == (True, 0)
    desk.books.cancel(desk.now, 10)
    assert desk.info()["canceled"]
    desk.books.end(running, None, desk.now)
    # Until its disk is closed.
    assert (desk.info()["active"], desk.info()["idle_time"]) == (True, 0)


def test_when_it_expires():
    assert Desk().books.expires == 1300
    assert Desk(lifetime=100).books.expires == 1100


def test_looking_changes_nothing(desk):
    assert desk.info()["version"] == desk.info()["version"]


@pytest.mark.parametrize(
    "change",
    [
        lambda desk: desk.begin(),
        lambda desk: desk.books.extend(Changes(timeout=1), desk.now),
        lambda desk: desk.books.cancel(desk.now, 0),
        lambda desk: desk.books.disconnect(desk.enter(), desk.now),
    ],
    ids=["begin", "extend", "cancel", "disconnect"],
)
def test_changes_are_news(desk, change):
    version = desk.info()["version"]
    change(desk)
    assert desk.info()["version"] > version


def test_what_moves_is_news(desk):
    running = desk.begin()
    version = desk.info()["version"]
    running.operation.advance(1)
    assert desk.info()["version"] == version + 1
    assert desk.info()["version"] == version + 1
    desk.books.end(running, None, desk.now)
    assert desk.info()["version"] == version + 2


def test_disk_that_was_opened_is_news(desk):
    link, is_new = desk.books.enter("write", FakeConnection(), desk.now)
    assert is_new
    line = desk.books.begin_opening(link, desk.now)
    assert desk.books.links.opening() == [(link, line)]
    version = desk.info()["version"]
    desk.books.note_opened(link, FakeBackend())
    assert desk.info()["version"] == version + 1
    desk.books.links.end_opening(link)
    assert desk.books.leave(link, desk.now) == []
    assert desk.books.enter("write", link.connection, desk.now) == (link, False)
    with pytest.raises(AssertionError, match="one request at a time"):
        desk.books.enter("write", link.connection, desk.now)
    desk.books.disconnect(link, desk.now)
    assert desk.info()["version"] == version + 2


# --- Authorization ---


def test_authorize():
    Desk(ops=["read"]).authorize("read")
    Desk(ops=["write"]).authorize("read")
    Desk(ops=["write"]).authorize("write")
    with pytest.raises(errors.NotPermitted):
        Desk(ops=["read"]).authorize("write")


def test_expired(desk):
    desk.clock.advance(299)
    desk.authorize()
    desk.clock.advance(1)
    with pytest.raises(errors.NoSuchTicket):
        desk.authorize()


def test_canceled(desk):
    link = desk.enter()
    desk.books.cancel(desk.now, 0)
    for use in (desk.authorize, desk.enter, lambda: desk.books.begin(Steps(link.connection), link, desk.now)):
        with pytest.raises(errors.NoSuchTicket):
            use()
    with pytest.raises(errors.NoSuchTicket):
        desk.books.begin_opening(link, desk.now)


def test_who_enters_is_asked(desk):
    desk = Desk(ops=["read"])
    with pytest.raises(errors.NotPermitted):
        desk.books.enter("write", FakeConnection(), desk.now)
    desk.clock.advance(300)
    with pytest.raises(errors.NoSuchTicket):
        desk.books.enter("read", FakeConnection(), desk.now)
    assert len(desk.books.links) == 0


def test_stopped_and_then_removed(desk):
    """A client of a service that stops may try again."""
    running = desk.begin("read")
    desk.books.cancel(desk.now, 0, is_removed=False)
    assert running.cut_reason == "the service stops"
    with pytest.raises(errors.ServiceStops):
        desk.authorize()
    assert not desk.books.is_alive(desk.now)
    desk.books.cancel(desk.now, 0)
    with pytest.raises(errors.NoSuchTicket):
        desk.authorize()


def test_progress_is_seen_by_authorize(desk):
    running = desk.begin()
    desk.clock.advance(200)
    running.operation.advance(10)
    desk.clock.advance(200)
    # It moved, though nothing looked at it since: it is alive.
    desk.authorize("write")


# --- Extending ---


def test_engine_arithmetic(desk):
    before = desk.info()["expires"]
    desk.clock.advance(0.9)
    desk.books.extend(Changes(timeout=600), desk.now)
    assert desk.info()["expires"] - before in (300, 301)
    assert desk.info()["timeout"] == 300


def test_extension_survives_activity(desk):
    desk.books.extend(Changes(timeout=600), desk.now)
    desk.clock.advance(10)
    desk.books.touch(desk.now)
    assert desk.info()["expires"] == 1600


def test_expire_at_once_and_revive(desk):
    desk.books.extend(Changes(timeout=0), desk.now)
    with pytest.raises(errors.NoSuchTicket):
        desk.authorize()
    assert not desk.books.is_alive(desk.now)
    desk.books.extend(Changes(timeout=1), desk.now)
    desk.authorize()
    assert desk.books.is_alive(desk.now)


def test_what_moved_before_an_extension_does_not_lengthen_it(desk):
    running = desk.begin()
    desk.clock.advance(100)
    running.operation.advance(1)
    desk.books.extend(Changes(timeout=10), desk.now)
    assert desk.info()["remaining"] == 10


def test_inactivity(desk):
    for asked, told in [(77, 77), (0, 60)]:
        desk.books.extend(Changes(inactivity_timeout=asked), desk.now)
        assert desk.info()["inactivity_timeout"] == told
    assert desk.info()["remaining"] == 300


def test_use_lengthens_the_life(desk):
    desk.clock.advance(100)
    running = desk.begin()
    assert desk.info()["remaining"] == 300
    desk.clock.advance(100)
    desk.end(running)
    assert desk.info()["remaining"] == 300


# --- Expiry ---


def test_moving_transfer_never_expires(desk):
    running = desk.begin()
    for _ in range(10):
        running.operation.advance(1)
        desk.tick(299)
    assert running.cut_reason is None
    assert desk.info()["remaining"] == 300


def test_finishing_operation_never_expires(desk):
    running = desk.begin()
    running.operation._is_finishing = True
    for _ in range(3):
        desk.tick(200)
    assert running.cut_reason is None


@pytest.mark.parametrize("name", ["read", "write"])
def test_operation_moves_too_slowly_for_a_step(desk, name):
    running = desk.begin(name)
    connection = running.link.connection
    desk.tick()
    for _ in range(10):
        connection.moved += 1
        desk.tick(200)
        assert running.cut_reason is None
        assert desk.info()["remaining"] == 300
    desk.tick(301)
    desk.tick()
    assert connection.is_aborted


@pytest.mark.parametrize("is_extended", [False, True])
def test_end_of_the_lifetime(is_extended):
    """What never ends by itself is cut, what moves may come to its end."""
    desk = Desk() if is_extended else Desk(lifetime=100)
    if is_extended:
        desk.books.extend(Changes(lifetime=100), desk.now)
    upload, attached = desk.begin(), desk.begin("read")
    attached.operation.is_endless = True
    desk.tick(99)
    assert (upload.cut_reason, attached.cut_reason) == (None, None)
    desk.authorize()
    desk.tick(1)
    assert (upload.cut_reason, attached.cut_reason) == (None, "its ticket has ended")
    with pytest.raises(errors.NoSuchTicket):
        desk.authorize()


def test_grace_of_a_canceled_write(desk, caplog):
    caplog.set_level(logging.DEBUG)
    read, write = desk.begin("read"), desk.begin("write")
    desk.books.cancel(desk.now, 10)
    assert "CANCEL transfer=transfer-1 running=2" in caplog.text
    assert (read.cut_reason, write.cut_reason) == ("its ticket was canceled", None)
    desk.tick(9)
    assert write.cut_reason is None
    desk.tick(1)
    assert write.cut_reason == "its ticket was canceled"


def test_clock_that_goes_nowhere(desk):
    running = desk.begin()
    for _ in range(100):
        desk.tick()
    assert running.cut_reason is None
    assert desk.info()["rate"] == 0


def test_rate(desk):
    desk.info()
    running = desk.begin()
    for _ in range(4):
        running.operation.advance(1000)
        desk.tick(1)
    assert desk.info()["rate"] == 1000
    [client] = desk.info()["clients"]
    assert (client["received"], client["sent"], client["rate"]) == (4000, 0, 1000)


def test_rate_after_a_pause(desk):
    """It is that since the beginning, also at the first look."""
    for _ in range(2):
        running = desk.begin()
        assert desk.books.ask_attention(desk.now)
        for _ in range(4):
            running.operation.advance(1000)
            assert desk.tick(1)
            assert desk.info()["rate"] == 1000
        desk.end(running)
        assert not desk.tick(100)


def test_ticks_are_wanted_while_something_runs(desk):
    running = desk.begin()
    assert desk.books.ask_attention(desk.now)
    assert not desk.books.ask_attention(desk.now)
    assert desk.tick()
    desk.end(running)
    assert not desk.tick()
    link = desk.enter()
    assert not desk.tick()
    # Nothing runs, but a canceled transfer waits for the end of the request.
    desk.books.cancel(desk.now, 0)
    assert desk.books.ask_attention(desk.now)
    assert desk.tick()
    assert link.backend.interrupted
    assert desk.books.leave(link, desk.now)
    assert desk.tick()


# --- Too many connections ---


def test_too_many_connections():
    desk = Desk(max_connections=3)
    links = [desk.enter() for _ in range(3)]
    with pytest.raises(errors.TooManyConnections, match="limit of 3 connections"):
        desk.enter()
    # Those that are there go on.
    desk.books.leave(links[0], desk.now)
    assert desk.enter(connection=links[0].connection) is links[0]
    backend = links[0].backend
    assert desk.books.disconnect(links[0], desk.now) == [backend]
    desk.enter()
    assert desk.info()["connections"] == 3


def test_the_longest_stall_gives_way():
    desk = Desk(max_connections=3)
    moving, stalled, late = (desk.begin(name) for name in ("read", "write", "read"))
    desk.tick()
    for _ in range(4):
        late.link.connection.moved += desk.now < 1007
        moving.operation.advance(1)
        desk.tick(3)
    desk.enter()
    assert [running.link.connection.is_aborted for running in (moving, stalled, late)] == [False, True, False]
    desk.end(stalled, errors.OperationCanceled())
    assert desk.info()["last_error"].startswith("The operation was cut: it stood still, and its ticket")
    desk.books.disconnect(stalled.link, desk.now)
    # The other one was patient for less than ten seconds.
    with pytest.raises(errors.TooManyConnections):
        desk.enter()


def test_what_moved_just_now_does_not_give_way():
    desk = Desk(max_connections=1)
    running = desk.begin()
    desk.clock.advance(20)
    running.operation.advance(1)
    with pytest.raises(errors.TooManyConnections):
        desk.enter()


def test_what_waits_for_the_storage_does_not_give_way():
    desk = Desk(max_connections=3)
    for _ in range(3):
        desk.begin().operation._is_finishing = True
    desk.clock.advance(100)
    with pytest.raises(errors.TooManyConnections):
        desk.enter()


# --- What is to be closed ---


def test_backend_is_kept_until_it_is_spoiled(desk):
    link = desk.enter()
    backend = link.backend
    for error, kept in [(None, True), (errors.PartialContent(10, 5), True), (ZeroDivisionError(), False)]:
        running, _ = desk.books.begin(Steps(link.connection), link, desk.now)
        assert desk.books.end(running, error, desk.now) == ([] if kept else [backend])
    assert desk.books.leave(link, desk.now) == []


def test_cancel_returns_what_no_request_uses(desk):
    idle, used = desk.enter(), desk.enter()
    desk.books.leave(idle, desk.now)
    backend, other = idle.backend, used.backend
    assert desk.books.cancel(desk.now, 0) == [backend]
    assert desk.books.leave(used, desk.now) == [other]
    desk.books.end_closing(backend)
    assert not desk.books.is_drained
    desk.books.end_closing(other)
    assert desk.books.is_drained


@pytest.mark.parametrize("can_recover", [False, True])
def test_failure_of_the_storage(desk, can_recover):
    link = desk.enter()
    backend = link.backend
    backend.can_recover = can_recover
    link.writes.note_write()
    running, _ = desk.books.begin(Steps(link.connection), link, desk.now)
    assert desk.books.end(running, errors.StorageError("write", "no"), desk.now) == ([] if can_recover else [backend])
    assert link.writes.is_lost is not can_recover
    assert desk.info()["last_error"] == "Storage failed to write: no"


def test_failure_without_a_disk(desk):
    """It was closed because of the failure before."""
    link = desk.enter()
    link.backend = None
    link.writes.note_write()
    running, _ = desk.books.begin(Steps(link.connection), link, desk.now)
    assert desk.books.end(running, errors.StorageError("write", "no"), desk.now) == []
    assert link.writes.is_lost


def test_what_ended_is_accounted(desk):
    error = errors.PartialContent(200, 100)
    running = desk.begin()
    running.operation.advance(100)
    desk.end(running, error)
    assert desk.info()["transferred"] == 100
    assert desk.info()["last_error"] == str(error)
    assert desk.observer.finished == [("write", error)]


def test_what_was_cut_and_succeeds(desk):
    """Its backend is not used again: it may have been interrupted."""
    running = desk.begin()
    backend = running.link.backend
    running.cut("a reason")
    desk.clock.advance(100)
    assert desk.end(running) == [backend]
    # The cut is not activity.
    assert (desk.info()["last_error"], desk.info()["remaining"]) == (None, 200)


def test_request_that_opened_nothing(desk):
    link, _ = desk.books.enter("read", FakeConnection(), desk.now)
    desk.books.cancel(desk.now, 0)
    assert not desk.books.is_drained
    assert desk.books.leave(link, desk.now) == []
    assert desk.books.is_drained
    # There is nothing to be done any more.
    assert not desk.tick()


def test_nothing_is_used(desk):
    desk.books.cancel(desk.now, 0)
    assert desk.books.is_drained


# --- Lost writes ---


def test_loss_of_a_client_that_left(desk):
    first = desk.enter()
    first.writes.note_loss()
    desk.books.leave(first, desk.now)
    assert not desk.enter().writes.is_lost
    first.connection.is_left = True
    assert desk.enter().writes.is_lost
    desk.books.disconnect(first, desk.now)
    assert not desk.enter().writes.is_lost


def test_loss_of_a_client_that_disconnects(desk):
    first, second = desk.enter(), desk.enter("read")
    first.writes.note_loss()
    desk.books.disconnect(first, desk.now)
    desk.books.begin(Steps(second.connection, name="read"), second, desk.now)
    assert not second.writes.is_lost
    # It began as a request to read, and attaches the disk.
    desk.books.begin(Steps(second.connection), second, desk.now)
    assert second.writes.is_lost


# --- A restart of the service ---


@pytest.mark.parametrize("lifetime", [None, 1000])
def test_another_process_goes_on(lifetime):
    desk = Desk() if lifetime is None else Desk(lifetime=lifetime)
    desk.books.extend(Changes(inactivity_timeout=77), desk.now)
    failed = desk.begin(offset=4096)
    desk.end(failed, errors.PartialContent(20, 10))
    running = desk.begin()
    desk.clock.advance(10)
    # Nothing has looked at it since.
    running.operation.advance(100)
    record = desk.books.record(desk.now, desk.now - 4)
    assert dataclasses.replace(record, ticket=None, tag="", version=0) == dataclasses.replace(
        record,
        **{"ticket": None, "tag": "", "version": 0, "inactivity_timeout": 77, "remaining": 304, "idle": 0, "age": 10},
        **{"writes": 2, "ranges": ((0, 100),), "last_error": str(errors.PartialContent(20, 10)), "has_loss": False},
        lifetime=None if lifetime is None else 1000 - 10 + 4,
    )
    assert record.version == desk.info()["version"]
    assert record.ticket is desk.books.ticket
    assert len(record.tag) == 16
    assert desk.books.content_tag == f"{record.tag}-2"
    other = Desk()
    other.clock.advance(5000)
    record = dataclasses.replace(record, ticket=other.books.ticket, idle=3, has_loss=True)
    other.books.resume(record, other.now)
    again = other.books.record(other.now, other.now)
    assert dataclasses.replace(again, version=record.version) == record
    assert other.books.content_tag == desk.books.content_tag
    assert other.enter().writes.is_lost


def test_removed_ticket_is_not_handed_over(desk):
    desk.books.cancel(desk.now, 0, is_removed=False)
    assert desk.books.record(desk.now, desk.now) is not None
    desk.books.cancel(desk.now, 0)
    desk.books.cancel(desk.now, 0, is_removed=False)
    assert desk.books.record(desk.now, desk.now) is None


@pytest.mark.parametrize("is_lost", [False, True])
def test_loss_that_is_handed_over_is_that_before_the_stop(desk, is_lost):
    link = desk.enter()
    if is_lost:
        link.writes.note_loss()
    assert desk.books.record(desk.now, desk.now).has_loss is is_lost
    desk.books.cancel(desk.now, 0, is_removed=False)
    link.writes.forget()
    if not is_lost:
        link.writes.note_loss()
    desk.books.cancel(desk.now, 0, is_removed=False)
    assert desk.books.record(desk.now, desk.now).has_loss is is_lost


# --- Older changes ---


def test_older_changes_of_the_same_range(desk):
    first, beyond = desk.begin(offset=0), desk.begin(offset=4096)
    desk.begin("read")
    link = desk.enter()
    _, older = desk.books.begin(Steps(link.connection, 1023), link, desk.now)
    assert older == {first}
    assert beyond in desk.books.links.running


def test_a_content_tag_for_each_state_of_the_disk(desk):
    tag = desk.books.content_tag
    desk.begin("read").operation.is_answering = True
    assert desk.books.content_tag == tag
    desk.begin("write")
    assert desk.books.content_tag != tag


def test_a_client_that_was_attached_has_changed_the_disk_until_it_left(desk):
    """After the last look at the tag it may have written once more."""
    running = desk.begin("write")
    running.operation.is_answering = True
    tag = desk.books.content_tag
    assert desk.books.content_tag != tag
    desk.end(running)
    assert desk.books.record(desk.now, desk.now).writes == 4
