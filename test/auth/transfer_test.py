"""The live side of a ticket: backends, running operations, progress, expiry, cancel."""

import contextlib
import logging
import threading
import weakref

import pytest
from fakes import nbdpeer
from fakes.clock import FakeClock
from fakes.connections import Backends, FakeConnection, Run, Runner, Steps
from fakes.garbage import uncollected
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio import errors
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.ticket import Changes, parse
from ovirt_imageio.auth.transfer import Transfer
from ovirt_imageio.auth.use import Use
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.nbd.wire import Command
from ovirt_imageio.ops import checksum, operations

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"


class Recorder(TicketObserver):
    """Keeps what it is told."""

    def __init__(self):
        self.moved = []
        self.finished = []

    def bytes_moved(self, backend, operation, count):
        self.moved.append((backend, operation, count))

    def operation_finished(self, backend, operation, error):
        self.finished.append((backend, operation, type(error).__name__))


@pytest.fixture
def clock():
    return FakeClock(1000)


@pytest.fixture
def backends():
    return Backends()


@pytest.fixture
def make(clock, backends):
    def make(observer=None, **changes):
        document = {"uuid": UUID, "size": 2**30, "url": "file:///disk", "ops": ["write"], "timeout": 300, **changes}
        return Transfer(parse(document), backends, clock, observer=observer)

    return make


@pytest.fixture
def transfer(make):
    return make(transfer_id="transfer-1")


@pytest.fixture
def connection():
    return FakeConnection()


@pytest.fixture
def runner():
    with Runner() as runner:
        yield runner


def begin(runner, transfer, name="write", offset=0):
    """Start an operation on a new connection."""
    connection = FakeConnection()
    return connection, runner.start(transfer, connection, offset, name)


@contextlib.contextmanager
def using(transfer, connection):
    """Use the disk as a request does, yield its backend."""
    link = transfer.begin("write", connection)
    try:
        yield link.backend
    finally:
        transfer.end(link)


def open_backend(transfer, connection):
    """Use the disk once, so that the connection has a backend; return that."""
    with using(transfer, connection) as backend:
        return backend


# --- Authorization ---


def test_canceled(transfer, connection):
    transfer.cancel()
    with pytest.raises(errors.NoSuchTicket):
        transfer.authorize("read")
    with pytest.raises(errors.NoSuchTicket):
        transfer.begin("read", connection)


def test_permission_is_asked_where_a_use_begins(make, connection, clock):
    transfer = make(ops=["read"])
    with pytest.raises(errors.NotPermitted):
        transfer.begin("write", connection)
    clock.advance(300)
    with pytest.raises(errors.NoSuchTicket):
        transfer.begin("read", connection)
    assert transfer.describe_running() == []
    assert transfer.info()["connections"] == 0


def test_canceled_before_the_operation(transfer, connection):
    link = transfer.begin("write", connection)
    transfer.cancel()
    with pytest.raises(errors.NoSuchTicket):
        transfer.run(operations.Flush(link.backend), link)
    transfer.end(link)
    assert transfer.is_drained


def test_inactivity_timeout_reaches_connections(transfer, connection):
    open_backend(transfer, connection)
    assert connection.timeout == 60
    transfer.extend(Changes(inactivity_timeout=120))
    assert transfer.info()["inactivity_timeout"] == 120
    open_backend(transfer, connection)
    assert connection.timeout == 120
    transfer.extend(Changes(inactivity_timeout=0))
    assert transfer.info()["inactivity_timeout"] == 60


# --- Connections ---


def test_each_trace_is_told_once(transfer, connection, caplog):
    caplog.set_level(logging.INFO)
    told = []
    for traceparent in (None, "00-a", "00-a", "00-b", None):
        connection.traceparent = traceparent
        with using(transfer, connection) as disk:
            disk.trace = told.append
    # The first use opened the backend.
    assert told == ["00-a", "00-b", None]
    lines = [record.getMessage() for record in caplog.records if "TRACE" in record.getMessage()]
    assert [line.rpartition("traceparent=")[2] for line in lines] == ["00-a", "00-b"]


def test_what_opens_the_disk_is_told_the_trace(transfer, backends, connection):
    connection.traceparent = "00-a"
    open_backend(transfer, connection)
    assert backends.traceparent == "00-a"


def test_connections_for_which_the_kernel_speaks_tls(transfer):
    for encryption in ("kernel", "memory", "kernel-send"):
        connection = FakeConnection()
        connection.encryption = encryption
        open_backend(transfer, connection)
    assert (transfer.info()["kernel_tls"], transfer.info()["connections"]) == (2, 3)


def test_one_backend_per_connection(transfer, backends):
    one, two = FakeConnection(), FakeConnection()
    assert open_backend(transfer, one) is open_backend(transfer, one)
    assert open_backend(transfer, one) is not open_backend(transfer, two)
    assert transfer.info()["connections"] == 2
    one.close()
    assert transfer.info()["connections"] == 1
    assert [backend.closed for backend in backends.opened] == [1, 0]
    two.close()
    assert transfer.info()["connections"] == 0
    backends.wait_closed()


def test_connection_stays_while_the_ticket_lives(transfer, connection, clock):
    open_backend(transfer, connection)
    [is_needed] = connection.needs
    assert is_needed()
    clock.advance(300)
    assert not is_needed()


def test_opening_fails(transfer, connection, backends):
    backends.error = errors.BackendUnavailable("open", "connection refused")
    with pytest.raises(errors.BackendUnavailable):
        open_backend(transfer, connection)
    assert transfer.describe_running() == []
    info = transfer.info()
    assert info["connections"] == 0
    assert info["last_error"] == "Cannot open: connection refused"
    backends.error = None
    open_backend(transfer, connection)
    assert transfer.info()["connections"] == 1
    connection.close()
    backends.wait_closed()


def test_canceled_while_opening(make, backends, connection):
    transfer = None
    is_drained = []

    def open_and_cancel(ticket, line, traceparent):
        backend = backends(ticket)
        transfer.cancel()
        is_drained.append(transfer.is_drained)
        return backend

    transfer = Transfer(make().ticket, open_and_cancel, FakeClock())
    with pytest.raises(errors.NoSuchTicket):
        open_backend(transfer, connection)
    # A removal waits until what was being opened is closed again.
    assert is_drained == [False]
    assert transfer.is_drained
    backends.wait_closed()


@pytest.fixture
def hanging(make, clock, runner):
    """A transfer whose disk is opened by a server that hangs, until the line is cut."""
    waiting = threading.Event()

    def hang(ticket, line, traceparent):
        cut = threading.Event()
        with line.waking(cut.set):
            waiting.set()
            assert cut.wait(DEADLINE)
        raise errors.StorageError("open", "cut")

    transfer = Transfer(make().ticket, hang, clock)
    connection = FakeConnection()
    raised = []

    def use():
        try:
            open_backend(transfer, connection)
        except errors.Error as e:
            raised.append(e)

    thread = threading.Thread(target=use)
    thread.start()
    assert waiting.wait(DEADLINE)
    yield transfer, connection, lambda: (thread.join(DEADLINE), raised[0])[1]
    thread.join(DEADLINE)


def test_canceled_while_the_server_hangs(hanging, caplog):
    caplog.set_level(logging.INFO)
    transfer, connection, wait = hanging
    assert transfer.describe_running() == [f"opening the disk (connection {connection.id}, for 0 s)"]
    # Nothing was begun that a grace could help.
    transfer.cancel(grace=100)
    assert isinstance(wait(), errors.NoSuchTicket)
    assert transfer.wait_drained(DEADLINE)
    assert transfer.info()["last_error"] is None
    assert f"connection={connection.id}: opening the disk: its ticket was canceled" in caplog.text


def test_expired_while_the_server_hangs(hanging, clock):
    transfer, _, wait = hanging
    clock.advance(299)
    transfer.tick()
    assert transfer.describe_running()
    clock.advance(1)
    transfer.tick()
    assert isinstance(wait(), errors.NoSuchTicket)
    assert transfer.describe_running() == []


def test_opened_just_when_it_is_cut(make, clock, backends, connection):
    """No request gets a disk whose line is cut, though the ticket may be extended later."""

    def expire_and_open(ticket, line, traceparent):
        clock.advance(300)
        transfer.tick()
        return backends(ticket)

    transfer = Transfer(make().ticket, expire_and_open, clock)
    with pytest.raises(errors.NoSuchTicket):
        open_backend(transfer, connection)
    backends.wait_closed()
    transfer.extend(Changes(timeout=1000))
    open_backend(transfer, connection)
    connection.close()


def test_failed_backend_is_not_used_again(transfer, connection, backends, runner):
    first = open_backend(transfer, connection)
    run = runner.start(transfer, connection)
    run.operation.fail(errors.BackendTimeout("read", "no answer"))
    assert isinstance(run.wait(), errors.BackendTimeout)
    assert first.closed == 1
    assert open_backend(transfer, connection) is not first
    assert transfer.info()["connections"] == 1


@pytest.mark.parametrize("error", [errors.PartialContent(10, 5), errors.UnsupportedContext("dirty")])
def test_faults_of_the_client_do_not_spoil_the_backend(transfer, connection, runner, error):
    first = open_backend(transfer, connection)
    run = runner.start(transfer, connection)
    run.operation.fail(error)
    assert run.wait() is error
    assert open_backend(transfer, connection) is first


def test_close_that_fails_is_survived(transfer, connection, monkeypatch, caplog):
    backend = open_backend(transfer, connection)
    monkeypatch.setattr(backend, "close", lambda: 1 / 0)
    transfer.cancel()
    assert transfer.wait_drained(DEADLINE)
    assert "Cannot close a backend" in caplog.text


# --- Older writes ---


@pytest.fixture
def newer(transfer, runner):
    """Start a change over another connection, in a thread: it may have to wait."""

    def newer(offset=0):
        connection = FakeConnection()
        run = Run(Steps(connection, offset))
        thread = threading.Thread(target=run.run, args=(transfer, connection))
        thread.start()
        threads.append(thread)
        wait_until(lambda: f"connection {connection.id}," in str(transfer.describe_running()))
        return connection, run

    threads = []
    yield newer
    for thread in threads:
        thread.join(DEADLINE)


@pytest.mark.parametrize("part", ["sent everything", "left", "cut"])
def test_older_write_lands_before_a_newer_one(transfer, runner, newer, part):
    old, older = begin(runner, transfer)
    if part == "sent everything":
        older.operation.finishing()
    elif part == "left":
        old.is_left = True
    else:
        next(iter(transfer._books.links.running)).cut("a test")
    _, newer_run = newer(1023)
    assert not newer_run.operation.has_begun.is_set()
    older.operation.end()
    assert newer_run.operation.has_begun.wait(DEADLINE)
    newer_run.operation.end()
    assert newer_run.wait() is None


def test_zeroes_land_before_a_newer_write(transfer, newer, runner):
    """A request to zero has said all when it begins."""

    class Zero(Steps):
        needs_client = operations.Zero.needs_client

    old = FakeConnection()
    zero = Run(Zero(old, name="zero"))
    thread = threading.Thread(target=zero.run, args=(transfer, old))
    thread.start()
    assert zero.operation.has_begun.wait(DEADLINE)
    _, newer_run = newer()
    assert not newer_run.operation.has_begun.is_set()
    zero.operation.end()
    assert newer_run.operation.has_begun.wait(DEADLINE)
    newer_run.operation.end()
    thread.join(DEADLINE)


@pytest.mark.parametrize("offset, is_left", [(1024, True), (0, False)])
def test_other_writes_do_not_wait(transfer, runner, newer, offset, is_left):
    """For those of other ranges, and for those of clients that are there and have more to send."""
    old, older = begin(runner, transfer)
    old.is_left = is_left
    _, run = newer(offset)
    assert run.operation.has_begun.wait(DEADLINE)
    run.operation.end()
    older.operation.end()


def test_waiting_write_is_canceled(transfer, runner, newer):
    _, older = begin(runner, transfer)
    older.operation.finishing()
    _, run = newer()
    transfer.cancel()
    assert isinstance(run.wait(), errors.OperationCanceled)
    assert not run.operation.has_begun.is_set()
    older.operation.end()


def test_several_writes_land_in_order(transfer, runner, newer):
    """A client may give up more than once."""
    _, first = begin(runner, transfer)
    first.operation.finishing()
    connection, second = newer()
    connection.is_left = True
    _, third = newer()
    first.operation.end()
    assert second.operation.has_begun.wait(DEADLINE)
    assert not third.operation.has_begun.is_set()
    second.operation.end()
    assert third.operation.has_begun.wait(DEADLINE)
    third.operation.end()


def test_waiting_write_is_aborted(transfer, runner, newer):
    _, older = begin(runner, transfer)
    older.operation.finishing()
    connection, run = newer()
    connection.abort()
    assert isinstance(run.wait(), errors.OperationCanceled)
    older.operation.end()


# --- Too many connections ---


@pytest.fixture
def crowded(make, clock, backends):
    """A transfer with room for three connections."""
    return Transfer(make().ticket, backends, clock, max_connections=3)


def test_too_many_connections(crowded):
    connections = [FakeConnection() for _ in range(4)]
    for connection in connections[:3]:
        open_backend(crowded, connection)
    with pytest.raises(errors.TooManyConnections, match="limit of 3 connections"):
        open_backend(crowded, connections[3])
    # Those that are there go on.
    open_backend(crowded, connections[0])
    connections[0].close()
    open_backend(crowded, connections[3])
    assert crowded.info()["connections"] == 3


# --- Lost writes ---


@pytest.fixture
def breaking(make, clock):
    """A transfer whose NBD server acknowledges writes and flushes, but breaks each connection at the first read."""

    def script(call):
        call.negotiate(size=1024)
        request = call.request()
        while request.kind != Command.READ:
            call.done(request)
            request = call.request()
        call.hang_up()

    with nbdpeer.Peer(script) as peer:
        transfer = Transfer(make().ticket, lambda ticket, line, traceparent: NBDBackend(peer.url, writable=True), clock)
        connections = []

        def connect():
            connections.append(FakeConnection())
            return connections[-1]

        yield transfer, connect
        for connection in connections:
            connection.close()


class Collector:
    """A sink that gets nothing."""

    socket = None

    def write(self, view):
        pytest.fail("the server sends nothing")


def write(transfer, connection):
    with Use(transfer, "write", connection) as disk:
        disk.run(operations.Zero(disk.backend, 0, 512))


def flush(transfer, connection):
    with Use(transfer, "write", connection) as disk:
        disk.run(operations.Flush(disk.backend))


def break_server(transfer, connection):
    with pytest.raises(errors.StorageError), Use(transfer, "read", connection) as disk:
        disk.run(operations.Read(disk.backend, Collector(), 0, 512))


def assert_lost(transfer, connection):
    with pytest.raises(errors.StorageError, match="write again what was written"):
        flush(transfer, connection)


def test_flush_tells_of_writes_that_a_read_found_lost(breaking):
    transfer, connect = breaking
    connection = connect()
    write(transfer, connection)
    break_server(transfer, connection)
    assert_lost(transfer, connection)
    # Whatever repeats a flush that failed must not hear that all is well.
    assert_lost(transfer, connection)
    write(transfer, connection)
    flush(transfer, connection)


def test_flush_tells_of_writes_though_the_client_connected_again(breaking):
    """As our client does, when it is told that the storage did not answer in time."""
    transfer, connect = breaking
    first, second, third = connect(), connect(), connect()
    write(transfer, first)
    break_server(transfer, first)
    first.close()
    # One that only reads will never flush.
    with Use(transfer, "read", second):
        pass
    second.close()
    write(transfer, third)
    assert_lost(transfer, third)
    write(transfer, third)
    flush(transfer, third)


class BreaksLater(operations.Zero):
    """Fails when it has written a part."""

    def run(self):
        super().run()
        self._backend.writes.note_break()
        raise errors.BackendTimeout("write", "no answer")


@pytest.mark.parametrize("was_written", [False, True])
def test_write_that_fails_may_be_repeated(breaking, was_written):
    """Its client was told, and repeats it. Only what was acknowledged before is lost unnoticed."""
    transfer, connect = breaking
    connection = connect()
    if was_written:
        write(transfer, connection)
    with pytest.raises(errors.BackendTimeout), Use(transfer, "write", connection) as disk:
        disk.run(BreaksLater(disk.backend, 0, 512))
    write(transfer, connection)
    if was_written:
        assert_lost(transfer, connection)
    else:
        flush(transfer, connection)


def test_connection_that_broke_while_the_client_left(breaking):
    transfer, connect = breaking
    first, second = connect(), connect()
    write(transfer, first)
    with Use(transfer, "read", first) as disk:
        disk.backend._connection.client.interrupt()
    first.close()
    assert_lost(transfer, second)


def test_client_connects_again_before_the_old_connection_is_closed(breaking):
    """The thread of the first one has not noticed yet that its client has left."""
    transfer, connect = breaking
    first, other, second = connect(), connect(), connect()
    write(transfer, first)
    break_server(transfer, first)
    # Of another client, while the first one is there.
    write(transfer, other)
    flush(transfer, other)
    other.close()
    first.is_left = True
    write(transfer, second)
    assert_lost(transfer, second)
    first.close()
    # It is told once.
    write(transfer, second)
    flush(transfer, second)


def test_client_connects_again_while_the_old_connection_is_closed(breaking):
    """Closing a disk may take a while; what is known to be lost is told meanwhile."""
    transfer, connect = breaking
    first, second = connect(), connect()
    write(transfer, first)
    break_server(transfer, first)
    with Use(transfer, "read", first) as disk:
        backend = disk.backend
    close = backend.close

    def close_slowly():
        write(transfer, second)
        assert_lost(transfer, second)
        close()

    backend.close = close_slowly
    first.close()
    write(transfer, second)
    flush(transfer, second)


def test_flushed_writes_are_not_lost(breaking):
    transfer, connect = breaking
    first, second = connect(), connect()
    write(transfer, first)
    flush(transfer, first)
    break_server(transfer, first)
    flush(transfer, first)
    first.close()
    flush(transfer, second)


# --- Running ---


def test_run(make, connection, clock):
    recorder = Recorder()
    transfer = make(recorder)
    clock.advance(100)
    link = transfer.begin("write", connection)
    transfer.run(operations.Zero(link.backend, 100, 50, flush=True), link)
    transfer.end(link)
    info = transfer.info()
    assert info["transferred"] == 50
    assert info["expires"] == 1400
    assert not info["active"]
    assert recorder.moved == [("memory", "zero", 50)]
    assert recorder.finished == [("memory", "zero", "NoneType")]
    assert str(connection.clock).startswith("[zero 1 ops, ")


def test_active(transfer, runner, clock):
    _, run = begin(runner, transfer)
    clock.advance(100)
    info = transfer.info()
    assert info["active"]
    assert info["idle_time"] == 0
    run.operation.end()
    assert run.wait() is None
    assert not transfer.info()["active"]


def test_progress_while_it_runs(transfer, runner):
    _, one = begin(runner, transfer, offset=0)
    _, two = begin(runner, transfer, offset=50)
    one.operation.step(10)
    assert transfer.info()["transferred"] == 10
    two.operation.step(10)
    assert transfer.info()["transferred"] == 20
    # The ranges touch, then overlap.
    one.operation.step(40)
    assert transfer.info()["transferred"] == 60
    one.operation.step(5)
    assert transfer.info()["transferred"] == 60
    assert transfer.info()["transferred"] == 60
    one.operation.end()
    two.operation.end()


def test_failed_operation_counts_what_it_moved(transfer, runner):
    _, run = begin(runner, transfer, offset=100)
    run.operation.step(10)
    run.operation.fail(ConnectionResetError(104, "Connection reset by peer", "/secret/path"))
    assert isinstance(run.wait(), ConnectionResetError)
    info = transfer.info()
    assert info["transferred"] == 10
    assert info["last_error"] == "The connection broke: Connection reset by peer"


@pytest.mark.parametrize(
    "error, text",
    [
        (errors.NoSpace("write", "No space left on device", 28), "Storage failed to write: No space left on device"),
        (errors.OriginError("read", f"No such ticket {UUID}", status=403), f"No such ticket {UUID[:18]}..."),
        (ZeroDivisionError("secret"), "Internal error: ZeroDivisionError"),
        (TimeoutError("timed out"), "The connection broke: TimeoutError"),
    ],
)
def test_last_error(make, runner, error, text):
    recorder = Recorder()
    transfer = make(recorder)
    _, run = begin(runner, transfer)
    run.operation.fail(error)
    assert run.wait() is error
    assert transfer.info()["last_error"] == text
    assert recorder.finished == [("memory", "write", type(error).__name__)]


def test_flush_moves_nothing(transfer, runner):
    _, run = begin(runner, transfer, name="flush")
    run.operation.step(100)
    run.operation.end()
    assert run.wait() is None
    assert transfer.info()["transferred"] == 0


@pytest.mark.parametrize(("ops", "transferred"), [(["read"], 1024), (["write"], 0)])
def test_verifying_an_upload_transfers_nothing(make, connection, ops, transferred):
    transfer = make(ops=ops)
    with Use(transfer, "read", connection) as disk:
        disk.run(checksum.Checksum(disk.backend))
    assert transfer.info()["transferred"] == transferred


class Buffer(bytearray):
    """A buffer that a weak reference can watch."""


class Holding(operations.Flush):
    """Holds a buffer in its frame, as an operation does that moves bytes, while it fails."""

    def __init__(self, backend, act):
        super().__init__(backend)
        self._act = act

    def run(self):
        buffer = Buffer(1024)
        self._act(buffer)


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("kind", [errors.OperationCanceled, ZeroDivisionError, ConnectionResetError])
def test_failed_operation_leaves_no_memory_behind(transfer, connection, kind, is_cut):
    references = []

    def act(buffer):
        references.append(weakref.ref(buffer))
        if is_cut:
            transfer.cancel()
        raise kind

    def serve():
        with contextlib.suppress(kind, errors.OperationCanceled), Use(transfer, "write", connection) as disk:
            disk.run(Holding(disk.backend, act))

    with uncollected():
        serve()
        connection.close()
        [buffer] = references
        assert buffer() is None


# --- Expiry ---


@pytest.mark.parametrize("name", ["read", "write", "zero", "checksum", "extents"])
def test_stalled_operation_is_aborted(transfer, runner, clock, backends, name):
    connection, run = begin(runner, transfer, name)
    [backend] = backends.opened
    run.operation.step(5)
    transfer.tick()
    clock.advance(299)
    transfer.tick()
    assert not connection.is_aborted
    clock.advance(1)
    # The second time at the latest it is not asked any more.
    transfer.tick()
    transfer.tick()
    assert connection.is_aborted
    assert isinstance(run.wait(), errors.OperationCanceled)
    assert backend.interrupted
    assert backend.closed == 1
    info = transfer.info()
    # Being cut is not activity.
    assert info["remaining"] == 0
    assert info["transferred"] == 5
    assert info["last_error"] == "The operation was cut: it stood still until its ticket expired"


def test_ticks_are_wanted_while_something_runs(make, clock, backends, runner):
    attended = []
    transfer = Transfer(make().ticket, backends, clock, attend=attended.append)
    assert attended == []
    connection, run = begin(runner, transfer)
    assert attended == [transfer]
    assert transfer.tick()
    run.operation.end()
    run.wait()
    assert not transfer.tick()
    with using(transfer, connection) as backend:
        assert attended == [transfer]
        # Nothing runs, but a canceled transfer waits for the end of the request.
        transfer.cancel()
        assert attended == [transfer, transfer]
        assert transfer.tick()
        assert backend.interrupted
    assert not transfer.tick()


def test_expiry(transfer, runner, clock):
    assert transfer.find_expiry() == (1300, False)
    _, run = begin(runner, transfer)
    assert transfer.find_expiry() == (1300, True)
    run.operation.end()


# --- Cancel ---


def test_cancel_closes_idle_backends(transfer, backends):
    connections = [FakeConnection() for _ in range(3)]
    for connection in connections:
        open_backend(transfer, connection)
    transfer.cancel()
    assert transfer.wait_drained(DEADLINE)
    backends.wait_closed()
    # The clients are still there.
    assert transfer.info()["connections"] == 3
    for connection in connections:
        assert not connection.is_aborted
        connection.close()
    assert transfer.info()["connections"] == 0
    assert [backend.closed for backend in backends.opened] == [1, 1, 1]


def test_cancel_closes_idle_backends_when_there_are_no_more_threads(transfer, backends, connection, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    open_backend(transfer, connection)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        transfer.cancel()
    assert transfer.is_drained
    assert backends.leaked == 0


def test_cancel_cuts_reads_at_once(transfer, runner):
    connection, run = begin(runner, transfer, "read")
    transfer.cancel(grace=100)
    assert connection.is_aborted
    assert isinstance(run.wait(), errors.OperationCanceled)
    assert transfer.wait_drained(DEADLINE)


def test_cancel_gives_writes_a_moment(transfer, runner, clock):
    connection, run = begin(runner, transfer)
    transfer.cancel(grace=2)
    transfer.tick()
    run.operation.step(10)
    assert not connection.is_aborted
    assert not transfer.wait_drained(0)
    run.operation.end()
    assert run.wait() is None
    assert transfer.wait_drained(DEADLINE)


def test_cancel_cuts_writes_when_the_grace_ends(transfer, runner, clock):
    connection, run = begin(runner, transfer)
    transfer.cancel(grace=2)
    clock.advance(2)
    transfer.tick()
    # Asked first: a write that moves can still tell its client.
    assert not connection.is_aborted
    transfer.tick()
    assert connection.is_aborted
    assert isinstance(run.wait(), errors.OperationCanceled)
    assert transfer.wait_drained(DEADLINE)


def test_canceled_write_that_moves_is_not_aborted(transfer, runner):
    connection, run = begin(runner, transfer)
    transfer.cancel()
    run.operation.step(10)
    assert isinstance(run.wait(), errors.OperationCanceled)
    assert not connection.is_aborted
    assert transfer.info()["transferred"] == 10


def test_second_cancel_ends_the_grace(transfer, runner):
    connection, run = begin(runner, transfer)
    transfer.cancel(grace=100)
    transfer.cancel()
    transfer.tick()
    assert connection.is_aborted
    assert isinstance(run.wait(), errors.OperationCanceled)


def test_repeated_cancel_is_no_second_cut(transfer, runner):
    """Two removals at once must not keep a write from telling its client."""
    connection, run = begin(runner, transfer)
    transfer.cancel()
    transfer.cancel()
    assert not connection.is_aborted
    run.operation.step(1)
    assert isinstance(run.wait(), errors.OperationCanceled)


@pytest.mark.parametrize("name", ["write", "zero", "flush"])
def test_finishing_operation_is_never_cut(transfer, runner, clock, name):
    connection, run = begin(runner, transfer, name)
    run.operation.finishing()
    transfer.cancel()
    clock.advance(1000)
    transfer.tick()
    transfer.tick()
    assert not connection.is_aborted
    [line] = transfer.describe_running()
    assert line == f"{name} of 1024 bytes at 0, 0 done (connection {connection.id}, for 1000 s)"
    run.operation.end()
    assert run.wait() is None
    assert transfer.wait_drained(DEADLINE)
    assert transfer.describe_running() == []


def test_canceled_backend_is_closed_before_it_counts_as_drained(transfer, runner, backends):
    _, run = begin(runner, transfer)
    [backend] = backends.opened
    was_drained = []
    close = backend.close
    backend.close = lambda: (was_drained.append(transfer.is_drained), close())
    transfer.cancel()
    transfer.tick()
    assert transfer.wait_drained(DEADLINE)
    run.wait()
    assert was_drained == [False]
    assert backend.closed == 1


def test_backend_is_not_closed_under_a_request(transfer, connection):
    """A closed descriptor may be another file's a moment later: a request could tell the size of the wrong disk."""
    with using(transfer, connection) as backend:
        transfer.cancel()
        assert not transfer.is_drained
        assert backend.closed == 0
        assert transfer.describe_running() == [f"a request (connection {connection.id})"]
        # A client that removes without waiting looks at this until it may try again.
        assert transfer.info()["active"]
        assert backend.size() == 1024
    assert transfer.is_drained
    assert not transfer.info()["active"]
    assert backend.closed == 1


def test_request_that_hangs_in_the_storage_is_interrupted(transfer, connection):
    with using(transfer, connection) as backend:
        transfer.cancel()
        assert backend.interrupted == 0
        transfer.tick()
        assert backend.interrupted == 1


def test_backend_is_kept_between_requests(transfer, connection):
    backends = {open_backend(transfer, connection) for _ in range(3)}
    [backend] = backends
    assert backend.closed == 0
    assert transfer.info()["connections"] == 1


def test_backend_is_given_back_when_a_request_fails(transfer, connection):
    with pytest.raises(ZeroDivisionError), using(transfer, connection) as backend:
        raise ZeroDivisionError
    assert transfer.describe_running() == []
    assert backend.closed == 0
    transfer.cancel()
    assert transfer.wait_drained(DEADLINE)
    assert backend.closed == 1


def test_disconnected_after_a_canceled_request(transfer, connection):
    with using(transfer, connection) as backend:
        transfer.cancel()
    connection.close()
    assert transfer.is_drained
    assert backend.closed == 1


def test_cancel_may_be_repeated(transfer, connection, backends):
    open_backend(transfer, connection)
    transfer.cancel()
    transfer.cancel()
    assert transfer.wait_drained(DEADLINE)
    assert backends.opened[0].closed == 1


def test_success_after_the_cut_is_a_success(transfer, runner):
    _, run = begin(runner, transfer)
    transfer.cancel()
    run.operation.end()
    assert run.wait() is None


# --- Waiting for changes ---


def test_progress_ends_a_wait(transfer, runner):
    _, run = begin(runner, transfer)
    version = transfer.info()["version"]
    run.operation.step(1)
    # Nothing but a look at the operation tells.
    transfer.wait_change(version, DEADLINE, lambda: False)
    assert transfer.info()["version"] > version
    run.operation.end()


# --- A restart of the service ---


def resumed(make, transfer, clock, seconds=0.0):
    """Return what another process makes of a transfer that was stopped, and of which clients wait for `seconds`."""
    record = transfer.record(clock())
    clock.advance(seconds)
    other = make()
    other.resume(record)
    return other


def test_another_process_goes_on(make, clock, runner):
    transfer = make(ops=["read"], transfer_id="transfer-1")
    _, run = begin(runner, transfer, "read")
    run.operation.step(500)
    run.operation.end()
    assert run.wait() is None
    transfer.extend(Changes(timeout=200, inactivity_timeout=7))
    clock.advance(30)
    before = transfer.info()
    transfer.stop()
    other = make(ops=["read"], transfer_id="transfer-1")
    other.resume(transfer.record(clock()))
    after = other.info()
    for info in (before, after):
        # Connections, the rate and counters begin again, and a new version is the business of the store.
        for name in ("version", "rate", "received", "sent", "connections", "clients"):
            del info[name]
    assert after == before
    assert (after["transferred"], after["remaining"], after["idle_time"]) == (500, 170, 30)
    assert other.content_tag == transfer.content_tag
    other.authorize("read")


def test_time_without_a_service_is_not_counted(make, transfer, clock):
    assert resumed(make, transfer, clock, seconds=250).info()["remaining"] == 300


def test_time_of_the_drain_is_not_counted(transfer, clock):
    stopped = clock()
    clock.advance(30)
    assert transfer.record(stopped).remaining == 300


def test_expired_ticket_can_still_be_extended(make, transfer, clock):
    clock.advance(400)
    other = resumed(make, transfer, clock)
    assert other.describe_state() == "expired"
    other.extend(Changes(timeout=60))
    other.authorize("write")


@pytest.mark.parametrize("is_stopped_first", [True, False])
def test_removed_ticket_is_not_handed_over(transfer, clock, is_stopped_first):
    if is_stopped_first:
        transfer.stop()
        assert transfer.record(clock()) is not None
    transfer.cancel()
    transfer.stop()
    assert transfer.record(clock()) is None


def test_loss_is_told_after_the_restart(breaking, make, clock):
    transfer, connect = breaking
    connection = connect()
    write(transfer, connection)
    break_server(transfer, connection)
    connection.close()
    transfer.stop()
    assert transfer.record(clock()).has_loss
    other = make()
    other.resume(transfer.record(clock()))
    # Until a client hears of it.
    assert other.record(clock()).has_loss


def test_what_the_stop_cuts_is_no_loss(transfer, connection, runner, clock):
    """The storage is still there, with what it has acknowledged."""
    with Use(transfer, "write", connection) as disk:
        disk.backend.writes.note_write()
    run = runner.start(transfer, connection)
    transfer.stop()
    transfer.tick()
    assert isinstance(run.wait(), errors.ServiceStops)
    with pytest.raises(errors.ServiceStops):
        transfer.authorize("write")
    connection.close()
    assert not transfer.record(clock()).has_loss
