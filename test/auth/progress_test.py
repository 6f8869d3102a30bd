"""What a transfer adds up."""

import pytest
from fakes.connections import FakeBackend, FakeConnection, Steps

from ovirt_imageio import errors
from ovirt_imageio.auth.links import Link, Running
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.progress import Progress, describe_error

SECRET = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"


class Recorder(TicketObserver):
    def __init__(self):
        self.moved = []
        self.clients = []

    def bytes_moved(self, backend, operation, count):
        self.moved.append((backend, operation, count))

    def client_moved(self, client, operation, kind, count):
        self.clients.append((client, operation, kind, count))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def progress(recorder):
    return Progress(recorder, is_upload=False)


def running(name="write", offset=0):
    connection = FakeConnection()
    link = Link(connection)
    link.backend = FakeBackend()
    return Running(Steps(connection, offset, name), link, 0)


def test_fresh(progress):
    assert (progress.transferred, progress.rate, progress.last_error) == (0, 0, None)


def test_each_byte_counts_once(progress, recorder):
    run = running(offset=10)
    assert not progress.account(run)
    run.operation.done = 5
    assert progress.account(run)
    assert not progress.account(run)
    run.operation.done = 15
    assert progress.account(run)
    assert progress.transferred == 15
    again = running("read", offset=0)
    again.operation.done = 20
    assert progress.account(again)
    assert progress.transferred == 25
    # What went over the network is more than that.
    assert recorder.moved == [("memory", "write", 5), ("memory", "write", 10), ("memory", "read", 20)]
    assert recorder.clients == [("local", name, name, count) for _, name, count in recorder.moved]


class Restless(Steps):
    """Moves a byte whenever it is looked at."""

    @property
    def done(self):
        self._done += 1
        return self._done

    @done.setter
    def done(self, value):
        self._done = value


def test_what_moves_while_it_is_counted_counts_once(progress, recorder):
    connection = FakeConnection()
    link = Link(connection)
    link.backend = FakeBackend()
    run = Running(Restless(connection), link, 0)
    for _ in range(3):
        assert progress.account(run)
    assert sum(count for _, _, count in recorder.moved) == run.seen


class ReportsSent(FakeBackend):
    reports_sent = True


def provisional(offset):
    """Return an upload through a proxy."""
    connection = FakeConnection()
    link = Link(connection)
    link.backend = ReportsSent()
    return Running(Steps(connection, offset, "write"), link, 0)


def transferred(progress, *running):
    return progress.describe(True, running)["transferred"]


def test_what_was_only_sent_counts_while_it_may_be_stored(progress, recorder):
    stored, refused = provisional(0), provisional(100)
    for run in (stored, refused):
        run.operation.done = 50
        assert progress.account(run)
    assert transferred(progress, stored, refused) == 100
    stored.operation.done = 60
    progress.finish(stored)
    # Nothing of it was stored after all.
    refused.operation.done = 0
    progress.finish(refused)
    assert transferred(progress) == progress.transferred == 60
    again = provisional(50)
    again.operation.done = 20
    progress.account(again)
    assert transferred(progress, again) == 70
    progress.finish(again)
    assert transferred(progress) == 70
    assert sum(count for _, _, count in recorder.moved) == 130


def test_what_is_stored_counts_where_it_is(progress):
    """A client that is attached moves other ranges than those from the first one on."""

    class Elsewhere(Steps):
        def moved_since(self, done):
            return [(4096 + done, 4096 + self.done)]

    connection = FakeConnection()
    run = Running(Elsewhere(connection), Link(connection), 0)
    run.operation.done = 50
    progress.account(run)
    assert transferred(progress, run) == 50
    run.operation.done = 60
    progress.finish(run)
    assert (progress.ranges, transferred(progress)) == (((4096, 4156),), 60)


def test_what_is_no_transfer_and_ends_does_not_count(progress):
    run = provisional(0)
    run.operation.is_transfer = False
    run.operation.done = 10
    progress.finish(run)
    assert transferred(progress) == 0


@pytest.mark.parametrize("is_upload, is_verification", [(False, False), (False, True), (True, False), (True, True)])
def test_what_verifies_an_upload_does_not_count(recorder, is_upload, is_verification):
    progress = Progress(recorder, is_upload=is_upload)
    run = running("read")
    run.operation.is_verification = is_verification
    run.operation.done = 10
    assert progress.account(run)
    assert transferred(progress) == (0 if is_upload and is_verification else 10)


def test_what_is_no_transfer_moves_but_does_not_count(progress, recorder):
    run = running("flush")
    run.operation.done = 10
    assert progress.account(run)
    assert progress.transferred == 0
    assert recorder.moved == []


def test_another_process_goes_on(progress, recorder):
    run = running(offset=10)
    run.operation.done = 5
    progress.account(run)
    progress.last_error = "error"
    other = Progress(recorder, is_upload=False)
    other.resume(progress.ranges, progress.last_error)
    assert (other.ranges, other.transferred, other.last_error) == (((10, 15),), 5, "error")


def test_rate_is_of_all_bytes(progress):
    progress.observe([], 0)
    for second in (1, 2):
        runs = running("write"), running("read")
        for run in runs:
            run.operation.done = 50
        progress.observe(runs, second)
    assert progress.rate == 100


def test_rate_of_a_connection(progress):
    run = running()
    for second in range(3):
        progress.observe([run], second)
        run.operation.done += 100
    assert run.link.meter.rate() == 100


def test_rate_begins_when_something_begins(progress):
    run = running()
    progress.begin(10)
    run.operation.done = 100
    progress.observe([run], 11)
    assert progress.rate == 100


def test_ways_of_bytes(progress):
    for name, count in (("read", 7), ("write", 20), ("zero", 300), ("read", 1), ("flush", 4000)):
        run = running(name)
        run.operation.done = count
        progress.account(run)
        assert (run.link.received, run.link.sent) == ((0, count) if name == "read" else (count % 4000, 0))
    told = progress.describe(is_one_way=False)
    assert (told["received"], told["sent"]) == (320, 8)


def test_what_lives(progress):
    still, slow, finishing, moving = (running() for _ in range(4))
    all_of_them = [still, slow, finishing, moving]
    # The first look learns what the clients did until now.
    assert progress.observe(all_of_them, 0) == (False, False)
    assert progress.observe(all_of_them, 1) == (False, False)
    slow.link.connection.moved += 1
    assert progress.observe([still, slow], 2) == (False, True)
    assert progress.observe([still, slow], 3) == (False, False)
    assert (still.moved, slow.moved) == (0, 2)
    finishing.operation._is_finishing = True
    assert progress.observe([still, finishing], 4) == (False, True)
    moving.operation.done = 1
    assert progress.observe([moving, still], 5) == (True, True)
    assert (still.moved, finishing.moved, moving.moved) == (0, 4, 5)
    # What was cut does not live: what it moves is on its way out of the buffers, and would revive an expired ticket.
    finishing.cut_reason = moving.cut_reason = "cut"
    assert progress.observe([finishing], 6) == (False, False)
    moving.operation.done = 2
    assert progress.observe([moving], 7) == (True, False)


def test_describe(progress):
    run = running()
    run.operation.done = 5
    progress.observe([run], 0)
    progress.last_error = "error"
    both = {"last_error": "error", "rate": 0, "received": 5, "sent": 0}
    assert progress.describe(is_one_way=True) == {**both, "transferred": 5}
    assert progress.describe(is_one_way=False) == both


@pytest.mark.parametrize(
    "error, text",
    [
        (errors.NoSpace("write", "No space left", 28), "Storage failed to write: No space left"),
        (errors.OriginError("read", f"No {SECRET} here", status=404), f"No {SECRET[:18]}... here"),
        (OSError(5, "Input/output error", "/secret/path"), "The connection broke: Input/output error"),
        (TimeoutError("timed out"), "The connection broke: TimeoutError"),
        (ZeroDivisionError("secret"), "Internal error: ZeroDivisionError"),
    ],
)
def test_describe_error(error, text):
    assert describe_error(error, SECRET) == text
