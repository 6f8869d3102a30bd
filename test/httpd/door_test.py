from __future__ import annotations

import logging

import pytest
from fakes.clock import FakeClock

from ovirt_imageio.httpd.door import SUMMARY_SECONDS, TALLY_LIMIT, Door, Guest, Tally, group_of
from ovirt_imageio.httpd.limits import Limits


class Connection:
    """What the door knows of a connection."""

    def __init__(self, waits_since):
        self.waits_since = waits_since
        self.is_aborted = False

    def abort(self):
        self.is_aborted = True


def guest(client="192.0.2.1", waits_since=None):
    it = Guest(client)
    it.connection = Connection(waits_since)
    return it


def door(connections=2, client_connections=1, grace=1.0):
    return Door(Limits(connections=connections, client_connections=client_connections, waiting_grace=grace))


@pytest.mark.parametrize(
    "client, group",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1:2:3", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("local", ""),
    ],
)
def test_groups(client, group):
    assert group_of(client) == group


def test_one_address_does_not_get_all():
    it = door()
    first = guest()
    assert it.enter(first, 0) is None
    refusal = it.enter(guest("::ffff:192.0.2.1"), 0)
    assert refusal.status == 503
    assert refusal.headers == {"retry-after": "5"}
    assert "Your address has its limit of 1 connections" in refusal.text
    assert it.enter(guest("192.0.2.2"), 0) is None
    it.leave(first)
    it.leave(first)
    assert it.enter(guest(), 0) is None


def test_unix_sockets_have_no_address():
    it = door(connections=2)
    assert it.enter(guest("local"), 0) is None
    assert it.enter(guest("local"), 0) is None
    refusal = it.enter(guest("local"), 0)
    assert refusal.status == 503
    assert "The server has its limit of 2 connections" in refusal.text


def test_longest_wait_makes_room():
    it = door(connections=4, client_connections=4)
    busy, late, early = guest(waits_since=None), guest(waits_since=20.0), guest(waits_since=10.0)
    new = Guest("192.0.2.1")
    for each in (busy, late, early, new):
        assert it.enter(each, 10) is None
    # Within the grace all of them may still have something to say.
    assert it.enter(guest(), 10.5).status == 503
    assert it.enter(guest("192.0.2.9"), 30) is None
    assert early.connection.is_aborted
    assert it.enter(guest("192.0.2.9"), 30) is None
    assert late.connection.is_aborted
    assert not busy.connection.is_aborted
    # Their threads end later.
    it.leave(early)
    it.leave(late)
    assert it.enter(guest("192.0.2.9"), 30).status == 503


@pytest.fixture
def clock():
    return FakeClock()


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_tally(clock, caplog):
    tally = Tally(clock)
    tally.tell()
    assert tally.left() is None
    tally.note("192.0.2.1", "too many")
    assert lines(caplog) == ["Refused a connection client=192.0.2.1: too many"]
    for _ in range(100):
        tally.note("192.0.2.1", "too many")
    tally.note("192.0.2.2", "too many")
    assert len(lines(caplog)) == 1
    assert tally.left() == SUMMARY_SECONDS
    clock.advance(SUMMARY_SECONDS)
    assert tally.left() == 0
    tally.tell()
    told = "Refused 101 more connections within 10 seconds, 100 of them of client=192.0.2.1"
    assert lines(caplog)[1:] == [told]
    # Silence, and the next one is told at once.
    clock.advance(SUMMARY_SECONDS)
    tally.note("192.0.2.3", "too many")
    assert lines(caplog)[2:] == ["Refused a connection client=192.0.2.3: too many"]


def test_tally_of_many_addresses(clock, caplog):
    tally = Tally(clock)
    for number in range(3 * TALLY_LIMIT):
        tally.note(f"client {number}", "too many")
    clock.advance(SUMMARY_SECONDS)
    tally.tell()
    assert lines(caplog)[1].endswith("of client=others")
