"""What is revoked stays so, however many are."""

from __future__ import annotations

import json
import logging

import pytest

from ovirt_imageio import errors
from ovirt_imageio.sessions import revocations
from ovirt_imageio.sessions.revocations import Revocations


@pytest.fixture
def full(monkeypatch):
    """As many as are remembered, of which the oldest one was denied at 10."""
    monkeypatch.setattr(revocations, "LIMIT", 3)
    full = Revocations()
    for number in range(3):
        full.deny(f"jti-{number}", 10 + number)
    return full


def test_one_that_was_shown_ends_with_its_token():
    denied = Revocations()
    denied.deny("a", 10, until=100, ticket_id="x")
    assert (denied.is_denied("a", 99), denied.is_denied("a", 100), denied.is_denied("b", 10)) == (True, False, False)
    denied.purge(99)
    assert denied.ticket_of("a") == "x"
    denied.purge(100)
    assert (len(denied), denied.ticket_of("a")) == (0, None)


def test_one_that_was_never_seen_does_not_end():
    denied = Revocations()
    denied.deny("a", 10)
    denied.purge(10**10)
    assert denied.is_denied("a", 10**10)


def test_again():
    """The later end counts, and the ticket is not forgotten."""
    denied = Revocations()
    denied.deny("a", 10, until=100, ticket_id="x")
    denied.deny("a", 20, until=50)
    assert (denied.is_denied("a", 99), denied.ticket_of("a")) == (True, "x")
    denied.deny("a", 30, until=200)
    denied.purge(100)
    assert (denied.is_denied("a", 199), denied.ticket_of("a")) == (True, "x")


def test_nothing_is_covered_while_all_are_remembered(full):
    assert not full.covers(0)
    assert not full.covers(10)


def test_the_oldest_one_is_forgotten_for_a_time(full, caplog):
    with caplog.at_level(logging.WARNING):
        full.deny("jti-3", 20)
        full.deny("jti-4", 21)
    assert [full.is_denied(f"jti-{number}", 30) for number in range(5)] == [False, False, True, True, True]
    assert len(full) == 3
    # What was forgotten last was denied at 11.
    assert [full.covers(issued) for issued in (0, 11, 11.5, 12)] == [True, True, False, False]
    assert caplog.text.count("must tell by its iat") == 1


def test_denied_again_is_not_the_oldest_any_more(full):
    full.deny("jti-0", 20)
    full.deny("jti-3", 21)
    assert [full.is_denied(f"jti-{number}", 30) for number in range(4)] == [True, False, True, True]
    assert len(full) == 3


def test_forgetting_an_old_one_later_does_not_go_back(full):
    """The clock was set back: what was forgotten before is still covered."""
    full.deny("jti-3", 5)
    for number in range(4, 8):
        full.deny(f"jti-{number}", 6)
    assert full.covers(12)


def test_what_was_forgotten_is_not_lifted(full):
    full.deny("shown", 13, until=50)
    for number in range(3):
        full.deny(f"other-{number}", 14)
    full.purge(60)
    assert len(full) == 3


def test_another_process_goes_on(full):
    full.deny("jti-3", 20, until=100)
    other = Revocations()
    other.resume(json.loads(json.dumps(full.record())))
    assert [other.is_denied(f"jti-{number}", 30) for number in range(4)] == [False, True, True, True]
    assert (other.covers(10), other.covers(11)) == (True, False)
    other.deny("jti-4", 21)
    assert not other.is_denied("jti-1", 30)
    other.purge(100)
    assert not other.is_denied("jti-3", 30)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"forgotten": "then", "denials": {}},
        {"forgotten": 0, "denials": []},
        {"forgotten": 0, "denials": {"a": 5}},
        {"forgotten": 0, "denials": {"a": {"since": 1}}},
        {"forgotten": 0, "denials": {"a": {"since": 1, "until": True}}},
    ],
)
def test_a_record_that_is_damaged(document):
    with pytest.raises(errors.InvalidTicket):
        Revocations().resume(document)
