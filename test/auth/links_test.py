"""What a transfer holds on to."""

import pytest
from fakes.connections import FakeBackend, FakeConnection, Steps

from ovirt_imageio import errors
from ovirt_imageio.auth.links import Link, Links, Running


@pytest.fixture
def connection():
    return FakeConnection()


def running(connection, name):
    link = Link(connection)
    link.backend = FakeBackend()
    return Running(Steps(connection, name=name), link, 0)


def test_read_is_cut_at_once(connection):
    read = running(connection, "read")
    read.cut("reason")
    assert read.cut_reason == "reason"
    assert connection.is_aborted
    assert read.link.backend.interrupted == 1


@pytest.mark.parametrize("name", ["write", "zero", "flush", "checksum", "extents"])
def test_others_may_notice_first(connection, name):
    run = running(connection, name)
    run.cut("reason")
    assert not connection.is_aborted
    assert run.link.backend.interrupted == 0
    run.cut("reason")
    assert connection.is_aborted
    assert run.link.backend.interrupted == 1


def test_what_is_cut_is_told_to_stop(connection):
    run = running(connection, "write")
    run.operation.advance(1)
    run.cut("reason")
    with pytest.raises(errors.OperationCanceled):
        run.operation.advance(1)


def test_nothing_has_moved_yet(connection):
    run = running(connection, "write")
    assert (run.seen, run.link.received, run.link.sent) == (0, 0, 0)


def test_rate_of_what_comes_and_goes(connection):
    link = Link(connection)
    for now in range(3):
        link.sample(now)
        link.received += 10
        link.sent += 100
    assert link.meter.rate() == 110


def test_where_the_answer_has_begun_nothing_can_be_told(connection):
    checksum = running(connection, "checksum")
    checksum.operation.is_answering = True
    checksum.cut("reason")
    assert connection.is_aborted


def test_what_ends_without_its_client(connection):
    read = running(connection, "read")
    assert not read.ends_alone()
    connection.is_left = True
    assert read.ends_alone()
    connection.is_left, read.operation._is_finishing = False, True
    assert read.ends_alone()
    read.operation._is_finishing = False
    assert not read.ends_alone()
    read.cut("reason")
    assert read.ends_alone()


@pytest.mark.parametrize(
    "name, is_answering, reports_sent, expected",
    [
        ("write", False, True, True),
        ("read", False, True, False),
        ("write", True, True, False),
        ("write", False, False, False),
    ],
)
def test_what_was_only_sent(connection, name, is_answering, reports_sent, expected):
    link = Link(connection)
    operation = Steps(connection, name=name)
    operation.is_answering = is_answering
    # Without a disk nothing is sent.
    assert not Running(operation, link, 0).is_provisional
    link.backend = FakeBackend()
    link.backend.reports_sent = reports_sent
    assert Running(operation, link, 0).is_provisional is expected


def test_a_client_is_active_between_two_looks(connection):
    run = running(connection, "write")
    connection.moved = 10
    assert not run.is_client_active()
    assert not run.is_client_active()
    connection.moved = 11
    assert run.is_client_active()
    assert not run.is_client_active()


def test_backend_name(connection):
    read = running(connection, "read")
    assert read.backend_name == "memory"
    read.link.backend = None
    assert read.backend_name == "memory"
    read.cut("without a backend")
    assert connection.is_aborted


# --- All of them ---


@pytest.fixture
def links():
    return Links()


def test_no_links(links, connection):
    assert links.find(connection) is None
    assert links.is_drained
    assert links.opened == 0
    assert links.describe(0) == []


def test_add_and_remove(links, connection):
    link = links.add(connection)
    assert links.find(connection) is link
    assert links.opened == 0
    link.was_opened = True
    assert links.opened == 1
    assert links.idle() == [link]
    links.remove(link)
    assert links.find(connection) is None


def moved(links, client, received, sent, name=None):
    """Return a link that has moved something, and whose operation runs if it has a name."""
    connection = FakeConnection()
    connection.client = client
    link = links.add(connection)
    link.was_opened = True
    link.received, link.sent = received, sent
    if name is not None:
        links.running.add(Running(Steps(connection, name=name), link, 0))
    return link


def test_clients(links, connection):
    links.add(connection)
    assert links.clients(0) == []
    one = moved(links, "192.0.2.7", 100, 0, "write")
    moved(links, "192.0.2.7", 10, 1)
    moved(links, "192.0.2.7", 0, 1000, "nbd")
    other = moved(links, "192.0.2.10", 0, 0)
    links.clients(0)
    one.received += 50
    one.sample(1)
    assert links.clients(2) == [
        {"address": "192.0.2.10", "protocol": "http", "connections": 1, "received": 0, "sent": 0, "rate": 0},
        {"address": "192.0.2.7", "protocol": "http", "connections": 2, "received": 160, "sent": 1, "rate": 25},
        {"address": "192.0.2.7", "protocol": "nbd", "connections": 1, "received": 0, "sent": 1000, "rate": 0},
    ]
    links.remove(other)
    assert [client["address"] for client in links.clients(3)] == ["192.0.2.7", "192.0.2.7"]


def test_what_is_in_use(links):
    idle, used, busy = (links.add(FakeConnection()) for _ in range(3))
    used.is_in_use = busy.is_in_use = True
    run = Running(Steps(busy.connection, name="read"), busy, 10)
    links.running.add(run)
    assert links.idle() == [idle]
    assert links.between_operations() == [used]
    assert links.describe(15) == [
        f"read of 1024 bytes at 0, 0 done (connection {busy.connection.id}, for 5 s)",
        f"a request (connection {used.connection.id})",
    ]
    links.running.discard(run)
    assert not links.is_drained
    used.is_in_use = busy.is_in_use = False
    assert links.is_drained


def test_taken_backends_are_in_between(links):
    one, two = (links.add(FakeConnection()) for _ in range(2))
    backend = one.backend = FakeBackend()
    assert links.take_backends([one, two], 10) == [backend]
    assert one.backend is None
    assert not links.is_drained
    assert links.describe(15) == ["closing the disk (for 5 s)"]
    assert links.take_backends([one, two], 20) == []
    links.end_closing(backend)
    assert links.is_drained
    assert links.describe(15) == []


def test_opening_is_in_between(links, connection):
    link = links.add(connection)
    link.is_in_use = True
    line = links.begin_opening(link, 10)
    assert links.opening() == [(link, line)]
    assert not links.is_drained
    assert links.describe(15) == [f"opening the disk (connection {connection.id}, for 5 s)"]
    links.end_opening(link)
    assert links.opening() == []
    assert links.describe(15) == [f"a request (connection {connection.id})"]
    link.is_in_use = False
    assert links.is_drained


def test_encryption_by_the_kernel(links):
    for encryption, was_opened in [("kernel", True), ("kernel", False), ("TLSv1.3", True), ("kernel TLSv1.3", True)]:
        link = links.add(FakeConnection())
        link.connection.encryption, link.was_opened = encryption, was_opened
    assert (len(links), links.opened, links.in_kernel) == (4, 3, 2)


def test_busy(links):
    link = links.add(FakeConnection())
    assert not links.is_busy
    links.begin_opening(link, 0)
    assert links.is_busy
    links.end_opening(link)
    assert not links.is_busy
    links.running.add(Running(Steps(link.connection), link, 0))
    assert links.is_busy


def test_the_longest_stall(links):
    assert links.find_stalled(100, 10) is None
    first, second = (Running(Steps(FakeConnection()), Link(FakeConnection()), now) for now in (1, 2))
    links.running.update((first, second))
    assert links.find_stalled(10, 10) is None
    assert links.find_stalled(11, 10) is links.find_stalled(100, 10) is first
    first.cut_reason = "a reason"
    assert links.find_stalled(11, 10) is None
    assert links.find_stalled(12, 10) is second


def test_a_client_that_has_left(links):
    used, aborted, waiting, left = (links.add(FakeConnection()) for _ in range(4))
    used.is_in_use = used.connection.is_left = True
    aborted.connection.is_aborted = aborted.connection.is_left = True
    assert links.find_left() is None
    left.connection.is_left = True
    assert links.find_left() is left
    waiting.connection.is_left = True
    assert links.find_left() is waiting


@pytest.mark.parametrize("offset, is_found", [(976, False), (977, True), (2000, True), (3023, True), (3024, False)])
def test_changes_of_the_same_range(links, offset, is_found):
    """Each operation has 1024 bytes."""
    link = links.add(FakeConnection())
    asked = Steps(link.connection, 2000)
    assert links.find_overlapping(asked) == set()
    change, read = (Running(Steps(link.connection, offset, name), link, 0) for name in ("zero", "read"))
    links.running.update((change, read))
    assert links.find_overlapping(asked) == ({change} if is_found else set())


def test_loss_of_a_client_that_left(links):
    """The client that writes next is told, once."""
    lost, other, following = (links.add(FakeConnection()) for _ in range(3))
    assert not links.has_loss
    lost.writes.note_loss()
    assert links.has_loss
    for link in (lost, other):
        links.keep_lost(link)
    assert links.has_loss
    links.pass_on_lost(following)
    assert following.writes.is_lost
    assert not lost.writes.is_lost
    links.pass_on_lost(other)
    assert not other.writes.is_lost


@pytest.mark.parametrize("lacks", ["loss", "end of the request", "end of the client", "nothing"])
def test_look_for_loss(links, lacks):
    """It is passed on if a client that lost writes has left, and no request of it runs."""
    link, following = links.add(FakeConnection()), links.add(FakeConnection())
    link.is_in_use, link.connection.is_left = lacks == "end of the request", lacks != "end of the client"
    if lacks != "loss":
        link.writes.note_loss()
    links.look_for_lost()
    links.pass_on_lost(following)
    assert following.writes.is_lost is (lacks == "nothing")


def test_loss_that_another_process_knew(links, connection):
    links.resume(has_loss=False)
    assert not links.has_loss
    links.resume(has_loss=True)
    assert links.has_loss
    link = links.add(connection)
    links.pass_on_lost(link)
    assert link.writes.is_lost
