"""Sessions over the real store of tickets: their states, what they share, and who may not use them."""

from __future__ import annotations

import json
import threading

import pytest
from fakes.clock import FakeClock, FakeWallClock
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.origin.image import Description
from ovirt_imageio.sessions import sessions as sessions_
from ovirt_imageio.sessions.sessions import Sessions
from ovirt_imageio.sessions.token import Access

TICKET = "7c9f7ddb-2c39-4c1b-8a6e-6c3ad7c2a1f5"
OTHER = "0b6f2a0e-95a4-4a47-8a38-1f5a4a4f7a55"
UNKNOWN = "11111111-1111-4111-8111-111111111111"


class Bench:
    """Sessions whose tokens are names, on a host that knows every image, at a time that the test tells."""

    def __init__(self) -> None:
        self.clock = FakeClock(1_000_000)
        self.wall = FakeWallClock(self.clock)
        self.store = Store(lambda ticket, line, traceparent: MemoryBackend(bytearray(1024)), self.clock)
        self.tokens: dict[str, Access] = {}
        self.image = Description(1024, True, False)
        self.looked: list[str] = []
        self.verified = 0
        self.refusal = None
        self.sessions = Sessions(self.store, self.verify, self.look, self.wall)

    def verify(self, token: str, now: float) -> Access:
        self.verified += 1
        if token not in self.tokens:
            raise errors.NotAuthenticated("bad token")
        return self.tokens[token]

    def look(self, url: str) -> Description:
        self.looked.append(url)
        if self.refusal is not None:
            raise self.refusal
        return self.image

    def add(
        self, token: str, lifetime: int = 300, ticket_id: str = TICKET, host: str = "host", shown: int = 300
    ) -> str:
        now = int(self.wall())
        self.tokens[token] = Access(
            f"https://{host}:54322", ticket_id, now + lifetime, now + shown, f"transfer-{token}"
        )
        return token

    def tickets(self) -> list:
        return self.store.list()

    def assert_nothing(self) -> None:
        assert len(self.sessions) == 0
        assert self.tickets() == []


@pytest.fixture
def bench():
    return Bench()


# Begin.


def test_open(bench):
    session_id = bench.sessions.open(bench.add("t"))
    assert bench.looked == [f"https://host:54322/images/{TICKET}"]
    ticket_id = bench.sessions.resolve(TICKET, session_id, None)
    assert ticket_id not in (TICKET, session_id)
    info = bench.store.info(ticket_id)
    assert info["url"] == f"https://host:54322/images/{TICKET}"
    assert info["size"] == 1024
    assert info["ops"] == ["read", "write"]
    assert info["timeout"] == 300
    assert info["transfer_id"] == "transfer-t"
    assert bench.store.authorize(ticket_id, "write").ticket.sparse


def test_what_the_host_tells_becomes_the_ticket(bench):
    bench.image = Description(77, False, True, "disk ü.qcow2")
    session_id = bench.sessions.open(bench.add("t"))
    ticket = bench.store.authorize(bench.sessions.resolve(TICKET, session_id, None), "read").ticket
    assert (ticket.size, ticket.ops, ticket.dirty, ticket.filename) == (77, ("read",), True, "disk ü.qcow2")


def test_nothing_shown(bench):
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.open(None)
    bench.assert_nothing()


def test_bad_token(bench):
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.open("bad")
    bench.assert_nothing()
    assert bench.looked == []


@pytest.mark.parametrize(
    "error", [errors.OriginError("open", "No such ticket", status=403), errors.BackendTimeout("open", "slow")]
)
def test_host_refuses(bench, error):
    bench.refusal = error
    with pytest.raises(type(error)):
        bench.sessions.open(bench.add("t"))
    bench.assert_nothing()


def test_same_token_twice_gives_two_sessions(bench):
    token = bench.add("t")
    first, second = bench.sessions.open(token), bench.sessions.open(token)
    assert first != second
    bench.sessions.close(first)
    assert bench.sessions.resolve(TICKET, second, None)


def test_ids_are_unique(bench):
    token = bench.add("t")
    assert len({bench.sessions.open(token) for _ in range(1000)}) == 1000


def test_too_many(bench, monkeypatch):
    monkeypatch.setattr(sessions_, "SESSIONS_LIMIT", 2)
    token = bench.add("t")
    bench.sessions.open(token)
    bench.sessions.open(token)
    with pytest.raises(errors.BackendUnavailable, match="too many"):
        bench.sessions.open(token)
    # Those that expired do not count.
    bench.clock.advance(300)
    bench.sessions.open(bench.add("t2"))
    assert len(bench.sessions) == 1


@pytest.mark.parametrize("size", [-1, 2**63])
def test_host_that_describes_no_disk(bench, size):
    """Whatever makes the ticket impossible leaves no session without one."""
    bench.image = Description(size, True, False)
    token = bench.add("t")
    for _ in range(2):
        with pytest.raises(errors.InvalidTicket):
            bench.sessions.open(token)
        with pytest.raises(errors.InvalidTicket):
            bench.sessions.resolve(TICKET, None, token)
    bench.assert_nothing()


# Use.


def test_wrong_ticket(bench):
    session_id = bench.sessions.open(bench.add("t"))
    with pytest.raises(errors.NoSuchTicket):
        bench.sessions.resolve(OTHER, session_id, None)


def test_unknown_session(bench):
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, UNKNOWN, None)
    # A good token does not heal a bad session.
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, UNKNOWN, bench.add("t"))
    bench.assert_nothing()


def test_no_credentials(bench):
    with pytest.raises(errors.NotAuthenticated, match="No such ticket"):
        bench.sessions.resolve(TICKET, None, None)


def test_ids_of_ours_open_nothing(bench):
    session_id = bench.sessions.open(bench.add("t"))
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(session_id, None, None)


def test_control_ticket_needs_nothing(bench):
    bench.store.add({"uuid": TICKET, "size": 10, "ops": ["read"], "timeout": 300, "url": "file:///disk"})
    assert bench.sessions.resolve(TICKET, None, None) == TICKET
    assert bench.sessions.resolve(TICKET, UNKNOWN, None) == TICKET
    assert bench.sessions.resolve(TICKET, None, "junk") == TICKET
    assert bench.verified == 0


# Renew and expire.


def test_expiry(bench):
    session_id = bench.sessions.open(bench.add("t"))
    ticket_id = bench.sessions.resolve(TICKET, session_id, None)
    # Use does not lengthen it.
    for _ in range(299):
        bench.clock.advance(1)
        bench.store.authorize(bench.sessions.resolve(TICKET, session_id, None), "read").touch()
    bench.clock.advance(1)
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, session_id, None)
    with pytest.raises(errors.NoSuchTicket):
        bench.store.authorize(ticket_id, "read")
    with pytest.raises(errors.NotFound):
        bench.sessions.close(session_id)
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.open(bench.add("t2"), session_id)
    bench.assert_nothing()


def test_check(bench):
    session_id = bench.sessions.open(bench.add("t"))
    assert bench.sessions.open(None, session_id) == session_id
    bench.clock.advance(300)
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.open(None, session_id)


def test_renew(bench):
    session_id = bench.sessions.open(bench.add("t"))
    ticket_id = bench.sessions.resolve(TICKET, session_id, None)
    bench.clock.advance(200)
    assert bench.sessions.open(bench.add("newer"), session_id) == session_id
    # The same ticket, so that connections go on with what they opened, and the host is not asked again.
    assert bench.sessions.resolve(TICKET, session_id, None) == ticket_id
    assert len(bench.looked) == 1
    bench.clock.advance(299)
    bench.store.authorize(bench.sessions.resolve(TICKET, session_id, None), "write")
    bench.clock.advance(1)
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, session_id, None)


def test_renew_for_something_else(bench):
    session_id = bench.sessions.open(bench.add("t"))
    old = bench.sessions.resolve(TICKET, session_id, None)
    bench.sessions.open(bench.add("other", ticket_id=OTHER, host="host2"), session_id)
    with pytest.raises(errors.NoSuchTicket):
        bench.sessions.resolve(TICKET, session_id, None)
    assert bench.store.info(bench.sessions.resolve(OTHER, session_id, None))["url"].startswith("https://host2:")
    with pytest.raises(errors.NoSuchTicket):
        bench.store.authorize(old, "read")


def meanwhile(bench, act):
    """Let something happen once, while the host is asked about an image."""
    look = bench.look

    def look_and_act(url):
        bench.sessions._look = look
        act()
        return look(url)

    bench.sessions._look = look_and_act


def test_closed_while_it_is_renewed(bench):
    session_id = bench.sessions.open(bench.add("t"))
    meanwhile(bench, lambda: bench.sessions.close(session_id))
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.open(bench.add("other", ticket_id=OTHER), session_id)
    bench.assert_nothing()


def test_renewed_twice_at_once(bench):
    session_id = bench.sessions.open(bench.add("t"))
    second, third = bench.add("second", ticket_id=OTHER), bench.add("third", ticket_id=UNKNOWN)
    meanwhile(bench, lambda: bench.sessions.open(third, session_id))
    bench.sessions.open(second, session_id)
    assert bench.store.info(bench.sessions.resolve(OTHER, session_id, None))["transfer_id"] == "transfer-second"
    assert len(bench.tickets()) == 1
    bench.sessions.close(session_id)
    bench.assert_nothing()


def test_closing_ends_the_ticket_that_is_there_now(bench):
    session_id = bench.sessions.open(bench.add("t"))
    verify = bench.sessions._verify
    bench.add("other", ticket_id=OTHER)

    def verify_and_close(token, now):
        access = verify(token, now)
        bench.sessions.close(session_id)
        return access

    bench.sessions._verify = verify_and_close
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.open("other", session_id)
    bench.assert_nothing()


def test_access_and_ticket_of_a_session_belong_together(bench):
    """A request that is resolved while a session is renewed must not get the disk of another ticket."""
    session_id = bench.sessions.open(bench.add("t"))
    session = bench.sessions._by_id[session_id]
    bench.sessions.open(bench.add("other", ticket_id=OTHER), session_id)
    assert session.access.ticket_id == TICKET
    assert bench.sessions._by_id[session_id].ticket_id != session.ticket_id


def test_renew_with_bad_token(bench):
    session_id = bench.sessions.open(bench.add("t"))
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.open("bad", session_id)
    bench.sessions.resolve(TICKET, session_id, None)


# End.


def test_close(bench):
    session_id = bench.sessions.open(bench.add("t"))
    ticket_id = bench.sessions.resolve(TICKET, session_id, None)
    bench.sessions.close(session_id)
    bench.assert_nothing()
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, session_id, None)
    with pytest.raises(errors.NoSuchTicket):
        bench.store.authorize(ticket_id, "read")
    with pytest.raises(errors.NotFound):
        bench.sessions.close(session_id)


def test_purge(bench):
    bench.sessions.open(bench.add("short", lifetime=10))
    kept = bench.sessions.open(bench.add("long"))
    bench.sessions.resolve(TICKET, None, bench.add("shared", lifetime=10))
    bench.clock.advance(10)
    bench.sessions.purge()
    assert len(bench.sessions) == len(bench.tickets()) == 1
    bench.sessions.resolve(TICKET, kept, None)


# The wall clock is set: what a token tells are times of day, but its ticket lives for so many seconds.


def test_clock_is_set_forward(bench):
    session_id = bench.sessions.open(bench.add("t"))
    bench.wall.set(299)
    bench.sessions.resolve(TICKET, session_id, None)
    bench.wall.set(1)
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, session_id, None)
    bench.assert_nothing()


@pytest.mark.parametrize("is_shared", [True, False])
def test_clock_is_set_back(bench, is_shared):
    """It was two minutes fast: the session ends when its token does, and not with the seconds that were left then."""
    token = bench.add("t")
    shown = (None, token) if is_shared else (bench.sessions.open(token), None)
    ticket_id = bench.sessions.resolve(TICKET, *shown)
    del bench.tokens[token]
    bench.wall.set(-120)
    for seconds in (299, 2, 118):
        bench.clock.advance(seconds)
        assert bench.sessions.resolve(TICKET, *shown) == ticket_id
        bench.store.authorize(ticket_id, "read")
    bench.clock.advance(1)
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, *shown)


def test_ticket_that_was_removed_stays_removed(bench):
    session_id = bench.sessions.open(bench.add("t"))
    ticket_id = bench.sessions.resolve(TICKET, session_id, None)
    bench.store.remove(ticket_id, 0)
    assert bench.sessions.resolve(TICKET, session_id, None) == ticket_id
    with pytest.raises(errors.NoSuchTicket):
        bench.store.authorize(ticket_id, "read")


# A token with every request.


def test_shared(bench):
    token = bench.add("t")
    ticket_id = bench.sessions.resolve(TICKET, None, token)
    assert bench.sessions.resolve(TICKET, None, token + "\n") == ticket_id
    assert len(bench.looked) == bench.verified == len(bench.sessions) == 1
    # Another token for the same is another session.
    assert bench.sessions.resolve(TICKET, None, bench.add("t2")) != ticket_id


def test_shared_is_no_session_by_id(bench):
    bench.sessions.resolve(TICKET, None, bench.add("t"))
    [session] = bench.sessions._by_digest.values()
    with pytest.raises(errors.NotFound):
        bench.sessions.close(session.id)


@pytest.mark.parametrize("lifetime,shown", [(100, 300), (300, 100)])
def test_shared_ends_with_its_token(bench, lifetime, shown):
    token = bench.add("t", lifetime=lifetime, shown=shown)
    bench.sessions.resolve(TICKET, None, token)
    del bench.tokens[token]
    bench.clock.advance(99)
    bench.sessions.resolve(TICKET, None, token)
    bench.clock.advance(1)
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, None, token)


def test_shared_for_wrong_ticket(bench):
    with pytest.raises(errors.NoSuchTicket):
        bench.sessions.resolve(OTHER, None, bench.add("t"))
    bench.assert_nothing()
    assert bench.looked == []


def test_shared_bad_token(bench):
    with pytest.raises(errors.NotAuthenticated):
        bench.sessions.resolve(TICKET, None, "bad")
    bench.assert_nothing()


def test_many_at_once_share(bench):
    token = bench.add("t")
    barrier = threading.Barrier(8)
    results = []

    def work():
        barrier.wait(DEADLINE)
        results.append(bench.sessions.resolve(TICKET, None, token))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert len(bench.sessions) == len(bench.tickets()) == 1


# A restart of the service.


def restarted(bench):
    """Return the bench of the next process."""
    bench.store.stop()
    other = Bench()
    other.clock.now = bench.clock.now
    other.tokens = bench.tokens
    other.store.resume([record.describe() for record in bench.store.record(bench.clock())])
    other.sessions.resume(json.loads(json.dumps(bench.sessions.record())))
    return other


def test_sessions_go_on(bench):
    session_id = bench.sessions.open(bench.add("t"))
    shared = bench.sessions.resolve(OTHER, None, bench.add("u", ticket_id=OTHER))
    ticket_id = bench.sessions.resolve(TICKET, session_id, None)
    other = restarted(bench)
    assert other.sessions.resolve(TICKET, session_id, None) == ticket_id
    assert other.sessions.resolve(OTHER, None, "u") == shared
    assert other.looked == []
    other.clock.advance(400)
    with pytest.raises(errors.NotAuthenticated):
        other.sessions.resolve(TICKET, session_id, None)


def test_session_without_its_ticket_does_not_go_on(bench):
    session_id = bench.sessions.open(bench.add("t"))
    documents = bench.sessions.record()
    bench.sessions.close(session_id)
    bench.sessions.resume(documents)
    bench.assert_nothing()


@pytest.mark.parametrize(
    "change",
    [
        {"id": 5},
        {"access": None},
        {"access": {"base_url": TICKET}},
        {"digest": TICKET},
        {"digest": 7},
        {"ticket_id": None},
    ],
)
def test_session_that_cannot_go_on(bench, change, caplog):
    session_id = bench.sessions.open(bench.add("t"))
    (document,) = bench.sessions.record()
    bench.sessions.close(session_id)
    bench.sessions.resume([{**document, **change}, None])
    assert caplog.text.count("Cannot go on with a session after the restart") == 2
    assert TICKET not in caplog.text
    bench.assert_nothing()
