"""Signed tickets: what a token must say, and what becomes of it in the store."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict

import pytest
from fakes.clock import FakeClock
from fakes.signing import key_pair
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.net.jws import Key, PrivateKey
from ovirt_imageio.sessions import revocations, signed
from ovirt_imageio.sessions.signed import SignedTickets, Verifier

NOW = 1_800_000_000
SIGNER = PrivateKey(key_pair()[0])
KEY = Key(key_pair()[1])

TICKET = {"url": "file:///images/a.raw", "size": 100, "ops": ["read"]}


def token(jti="backup-1", exp=NOW + 600, aud="imageio", **fields):
    payload = {"jti": jti, "exp": exp, "aud": aud, **TICKET, **fields}
    return SIGNER.sign({name: value for name, value in payload.items() if value is not None})


class House:
    """A store, and the signed tickets that install into it; both clocks go together."""

    def __init__(self, **options):
        self.steady, self.wall = FakeClock(1000), FakeClock(NOW)
        self.store = Store(lambda ticket, line, traceparent: MemoryBackend(bytes(100)), self.steady)
        self.keys = {None: KEY}
        self.skew = options.pop("skew", 0)
        self.tickets = self.make(**options)

    def make(self, **options):
        verifier = Verifier(self.find_key, "imageio", lambda url: url.startswith("file:///images/"), self.skew)
        self.verify = verifier.verify
        return SignedTickets(self.store, verifier.verify, clock=self.wall, **options)

    def find_key(self, kid):
        if kid not in self.keys:
            raise errors.NotAuthenticated("unknown")
        return self.keys[kid]

    def wait(self, seconds):
        self.steady.advance(seconds)
        self.wall.advance(seconds)

    def can_use(self, jti="backup-1", shown=None):
        try:
            self.store.authorize(self.tickets.resolve(jti, shown or token()), "read")
        except errors.AuthorizationError:
            return False
        return True


@pytest.fixture
def house():
    return House()


# --- What a token must say ---


def test_a_ticket(house):
    ticket_id = house.tickets.resolve("backup-1", token(filename="a.raw", transfer_id="night"))
    info = house.store.info(ticket_id)
    assert (info["url"], info["size"], info["ops"]) == (TICKET["url"], 100, ["read"])
    assert (info["filename"], info["transfer_id"], info["lifetime"]) == ("a.raw", "night", 600)
    # Its id in the store is a secret: the jti is none.
    assert ticket_id != "backup-1"
    assert len(ticket_id) == 36


def test_it_is_the_same_ticket_for_each_request(house):
    assert house.tickets.resolve("backup-1", token()) == house.tickets.resolve("backup-1", token())


def test_it_has_a_name_for_logs(house):
    assert house.store.info(house.tickets.resolve("backup-1", token()))["transfer_id"] == "signed/backup-1"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": "a/b"}, "jti"),
        ({"jti": 5}, "jti"),
        ({"jti": "x" * 129}, "jti"),
        ({"uuid": "other"}, "uuid is not its jti"),
        ({"aud": None}, "its aud is not"),
        ({"aud": "other"}, "its aud is not"),
        ({"aud": ["other"]}, "its aud is not"),
        ({"aud": {"imageio": 1}}, "its aud is not"),
        ({"exp": None}, "exp is not a time"),
        ({"exp": True}, "exp is not a time"),
        ({"exp": "5"}, "exp is not a time"),
        ({"exp": -1}, "exp is not a time"),
        ({"exp": 1e300}, "exp is not a time"),
        ({"nbf": "now"}, "nbf is not a time"),
        ({"iat": "now"}, "iat is not a time"),
        ({"url": None}, "url is not one"),
        ({"url": 5}, "url is not one"),
        ({"url": "file:///etc/passwd"}, "url is not one"),
    ],
)
def test_claims_that_are_refused(house, fields, words):
    with pytest.raises(errors.NotAuthenticated) as caught:
        house.verify(token(**fields))
    assert words in str(caught.value)


@pytest.mark.parametrize("audience", ["imageio", ["other", "imageio"]])
def test_audiences(house, audience):
    assert house.can_use(shown=token(aud=audience))


# As far as 16 KiB go.
LONG = "x" * 9000
HUGE = [{"size": 10**4000}, {"filename": LONG}, {"url": f"file:///images/{LONG}"}, {"transfer_id": LONG}]


@pytest.mark.parametrize("fields", [{"size": -1}, {"ops": ["erase"]}, {"ops": None}, {"timeout": "1h"}, *HUGE])
def test_what_is_no_ticket(house, fields):
    with pytest.raises(errors.InvalidTicket):
        house.tickets.resolve("backup-1", token(**fields))
    assert len(house.tickets) == 0


def test_a_token_for_another_ticket(house):
    with pytest.raises(errors.NoSuchTicket):
        house.tickets.resolve("backup-2", token())


# --- Times ---


def test_expired_and_not_yet_valid(house):
    with pytest.raises(errors.NotAuthenticated, match="has expired"):
        house.tickets.resolve("backup-1", token(exp=NOW))
    with pytest.raises(errors.NotAuthenticated, match="not valid yet"):
        house.tickets.resolve("backup-1", token(nbf=NOW + 1))
    assert house.can_use(shown=token(nbf=NOW, exp=NOW + 1))


def test_clocks_that_differ():
    house = House(skew=30)
    assert house.can_use(shown=token(exp=NOW - 29, nbf=NOW - 100))
    assert house.can_use("early", token("early", nbf=NOW + 30))
    assert not house.can_use("late", token("late", exp=NOW - 30))
    assert not house.can_use("future", token("future", nbf=NOW + 31))


def test_it_ends_with_its_token(house):
    ticket_id = house.tickets.resolve("backup-1", token(exp=NOW + 600, timeout=50))
    house.wait(599)
    assert house.can_use(shown=token(exp=NOW + 600, timeout=50))
    house.wait(1)
    assert not house.can_use(shown=token(exp=NOW + 600, timeout=50))
    with pytest.raises(errors.NoSuchTicket):
        house.store.authorize(ticket_id, "read")


def test_a_good_token_revives_a_ticket_that_was_not_used(house):
    """Its timeout closes the disk; the token is the proof."""
    shown = token(timeout=50)
    ticket_id = house.tickets.resolve("backup-1", shown)
    house.wait(100)
    with pytest.raises(errors.NoSuchTicket):
        house.store.authorize(ticket_id, "read")
    assert house.can_use(shown=shown)


def test_a_ticket_that_the_store_forgot(house):
    first = house.tickets.resolve("backup-1", token())
    house.store.remove(first, 0)
    assert house.can_use()


def test_a_newer_token_renews(house):
    ticket_id = house.tickets.resolve("backup-1", token())
    house.wait(500)
    assert house.tickets.resolve("backup-1", token(exp=NOW + 2000)) == ticket_id
    assert house.store.info(ticket_id)["remaining"] <= 300
    house.wait(1000)
    assert house.can_use(shown=token(exp=NOW + 2000))
    # The older one has ended, as it says.
    assert not house.can_use(shown=token())


def test_an_older_token_does_not_shorten(house):
    house.tickets.resolve("backup-1", token(exp=NOW + 2000))
    ticket_id = house.tickets.resolve("backup-1", token(exp=NOW + 10))
    house.wait(100)
    house.store.authorize(ticket_id, "read")


def test_a_token_of_the_same_jti_for_something_else(house):
    house.tickets.resolve("backup-1", token())
    with pytest.raises(errors.NotAuthenticated, match="another ticket with its jti"):
        house.tickets.resolve("backup-1", token(ops=["read", "write"], exp=NOW + 2000))


def test_a_ticket_that_ended_leaves_its_jti_to_another_one(house):
    house.tickets.resolve("backup-1", token())
    house.wait(600)
    assert house.can_use(shown=token(ops=["read", "write"], exp=NOW + 2000))


@pytest.mark.parametrize("exp", [signed.LAST_SECOND, signed.LAST_SECOND - 5])
def test_a_token_without_an_end_does_no_harm_to_others(exp):
    """Somebody signs for 8000 years: after a restart all tickets are there."""
    house = House(skew=30)
    house.tickets.resolve("long", token("long", exp=exp))
    house.tickets.resolve("backup-1", token())
    other = house.make()
    other.resume(json.loads(json.dumps(house.tickets.record())))
    assert len(other) == 2


class Interrupted(House):
    """Lets something else happen in the middle of resolve(): when it reads the clock for the second time."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.meanwhile = lambda: None
        self.tickets = SignedTickets(self.store, self.verify, clock=self.now)

    def now(self):
        self.calls += 1
        if self.calls == 2:
            self.meanwhile()
        return self.wall()


def test_two_tokens_of_one_jti_at_once():
    """One of them is refused: it must not get the disk of the other one."""
    house = Interrupted()
    house.meanwhile = lambda: house.tickets.resolve("backup-1", token(url="file:///images/b.raw"))
    with pytest.raises(errors.NotAuthenticated, match="another ticket with its jti"):
        house.tickets.resolve("backup-1", token())


def test_one_token_twice_at_once():
    house = Interrupted()
    found = []
    house.meanwhile = lambda: found.append(house.tickets.resolve("backup-1", token()))
    assert house.tickets.resolve("backup-1", token()) == found[0]
    assert len(house.store.list()) == 1


# --- Revocation ---


def test_revoked_while_it_is_shown_for_the_first_time():
    house = Interrupted()
    house.meanwhile = lambda: house.tickets.deny("backup-1")
    assert not house.can_use()
    assert house.store.list() == []


def test_revoked_while_it_is_used():
    """Whatever the order: nothing brings the ticket back into the store."""
    for _ in range(15):
        house = House()
        house.tickets.resolve("backup-1", token())

        def use(house=house):
            while house.can_use():
                pass

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        for ticket_id in house.tickets.revoke("backup-1"):
            house.store.remove(ticket_id, 0)
        for thread in threads:
            thread.join(DEADLINE)
        assert house.store.list() == []


def test_the_ticket_of_a_jti_that_was_revoked(house):
    """Its removal is tried again while something runs on it."""
    ticket_id = house.tickets.resolve("backup-1", token())
    assert house.tickets.revoke("backup-1") == [ticket_id]
    assert house.tickets.revoke("backup-1") == [ticket_id]
    assert house.tickets.ticket_of("backup-1") == ticket_id
    house.wait(600)
    house.tickets.purge()
    assert house.tickets.ticket_of("backup-1") is None


def test_denied_when_its_token_came_just_now(house):
    ticket_id = house.tickets.resolve("backup-1", token())
    assert house.tickets.deny("backup-1") == [ticket_id]
    assert not house.can_use()


def test_a_newer_token_of_a_jti_that_was_revoked(house):
    """What was shown once is refused to its end."""
    house.tickets.resolve("backup-1", token())
    house.tickets.revoke("backup-1")
    newer = token(exp=NOW + 2000)
    assert not house.can_use(shown=newer)
    house.wait(1999)
    house.tickets.purge()
    assert not house.can_use(shown=newer)


def test_revoked(house):
    ticket_id = house.tickets.resolve("backup-1", token())
    assert house.tickets.revoke("backup-1")
    house.store.remove(ticket_id, 0)
    assert not house.can_use()
    assert not house.can_use(shown=token(exp=NOW + 599))


def test_revoked_by_its_id_in_the_store(house):
    assert house.tickets.revoke(house.tickets.resolve("backup-1", token()))
    assert not house.can_use()


def test_all_revoked(house):
    for jti in ("a", "b"):
        house.tickets.resolve(jti, token(jti))
    assert house.tickets.revoke("")
    assert not house.can_use("a", token("a"))
    assert house.can_use("c", token("c"))


def test_denied_before_it_is_seen(house):
    assert not house.tickets.revoke("backup-1")
    house.tickets.deny("backup-1")
    assert not house.can_use()


def test_denied_for_good_before_it_is_seen(house):
    """Nobody knows when the token ends that may come."""
    house.tickets.deny("backup-1")
    house.wait(365 * 24 * 3600)
    house.tickets.purge()
    assert not house.can_use(shown=token(exp=NOW + 10**9))


def test_no_jti_is_not_remembered(house):
    assert house.tickets.deny("no/jti") == []
    assert len(house.tickets._revocations) == 0


def test_denials_that_had_to_be_forgotten(house, monkeypatch):
    """None of them comes back: whatever may be one of them is refused, in words. What is in use goes on."""
    monkeypatch.setattr(revocations, "LIMIT", 2)
    assert house.can_use("in-use", token("in-use"))
    for jti in ("backup-1", "b", "c"):
        house.wait(1)
        house.tickets.deny(jti)
    for claims in ({}, {"iat": NOW}, {"iat": NOW + 1}):
        with pytest.raises(errors.NotAuthenticated, match=r"may have been revoked.* with iat"):
            house.tickets.resolve("backup-1", token(**claims))
    assert not house.can_use("b", token("b", iat=NOW + 2))
    assert house.can_use("in-use", token("in-use"))
    assert house.can_use("in-use", token("in-use", exp=NOW + 2000))
    assert house.can_use("new", token("new", iat=NOW + 2))


def test_the_clock_of_the_issuer_may_be_fast(monkeypatch):
    monkeypatch.setattr(revocations, "LIMIT", 0)
    house = House(skew=30)
    house.tickets.deny("backup-1")
    assert not house.can_use(shown=token(iat=NOW + 30))
    assert house.can_use(shown=token(iat=NOW + 31))


def test_a_denial_ends_with_the_token(house):
    house.tickets.resolve("backup-1", token())
    house.tickets.revoke("backup-1")
    house.wait(600)
    house.tickets.purge()
    assert house.can_use(shown=token(exp=NOW + 2000))


class Unsearched(OrderedDict):
    """Finds what is asked for by its name; nobody looks at all of it."""

    def __iter__(self):
        raise AssertionError("all were looked at")

    items = values = keys = __iter__


def test_a_new_ticket_does_not_look_at_all_others(house):
    for jti in ("a", "b", "c"):
        house.tickets.resolve(jti, token(jti))
    house.tickets.revoke("c")
    denied = house.tickets._revocations
    house.tickets._entries, denied._denials = map(Unsearched, (house.tickets._entries, denied._denials))
    house.tickets.resolve("d", token("d"))
    house.wait(600)
    house.tickets.purge()
    assert len(house.tickets) == len(denied) == 0


def test_a_renewed_ticket_is_not_purged_with_its_first_end(house):
    house.tickets.resolve("backup-1", token())
    house.tickets.resolve("backup-1", token(exp=NOW + 2000))
    house.wait(600)
    house.tickets.purge()
    assert len(house.tickets) == 1
    house.wait(1400)
    house.tickets.purge()
    assert len(house.tickets) == 0


def test_denied_by_a_file():
    denied = set()
    house = House(is_denied=denied.__contains__)
    ticket_id = house.tickets.resolve("backup-1", token())
    denied.add("backup-1")
    assert not house.can_use()
    with pytest.raises(errors.NotFound):
        house.store.info(ticket_id)


# --- Keys, limits, restarts ---


def test_a_key_that_was_taken_away(house):
    shown = token()
    assert house.can_use(shown=shown)
    del house.keys[None]
    assert not house.can_use(shown=shown)
    house.keys[None] = Key(key_pair(number=1)[1])
    assert not house.can_use(shown=shown)


def test_a_signature_is_verified_once(house):
    shown = token()
    house.tickets.resolve("backup-1", shown)

    class Counting(Key):
        count = 0

        def verify(self, token):
            self.count += 1
            return super().verify(token)

    house.keys[None] = counting = Counting(key_pair()[1])
    for _ in range(5):
        house.tickets.resolve("backup-1", shown)
    assert counting.count == 1


def test_tickets_are_bounded(house, monkeypatch):
    monkeypatch.setattr(signed, "TICKETS_LIMIT", 2)
    for jti in ("a", "b"):
        house.tickets.resolve(jti, token(jti, exp=NOW + 10))
    with pytest.raises(errors.BackendUnavailable, match="too many"):
        house.tickets.resolve("c", token("c"))
    house.wait(10)
    assert house.can_use("c", token("c"))


def test_another_process_goes_on(house):
    ticket_id = house.tickets.resolve("backup-1", token())
    house.tickets.resolve("gone", token("gone"))
    house.tickets.revoke("gone")
    record = json.loads(json.dumps(house.tickets.record()))
    other = house.make()
    other.resume(record)
    assert other.resolve("backup-1", token()) == ticket_id
    with pytest.raises(errors.NoSuchTicket):
        other.resolve("gone", token("gone"))


@pytest.mark.parametrize("document", [[], {"entries": []}, {"entries": {"x": {}}}, {"revocations": {"x": "soon"}}])
def test_a_record_that_is_damaged(house, document):
    with pytest.raises(errors.InvalidTicket):
        house.tickets.resume(document)
