"""What a process leaves of a transfer: as a JSON object and back, and what is not one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.auth import record, ticket
from ovirt_imageio.auth.ticket import MAX_SECONDS
from ovirt_imageio.geometry.blocks import MAX_SIZE

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"

DOCUMENT = {
    "ticket": {"uuid": UUID, "size": 2**30, "url": "file:///disk", "ops": ["read"], "timeout": 300},
    "inactivity_timeout": 60,
    "remaining": 12.5,
    "idle": 3,
    "age": 4.0,
    "tag": "0123456789abcdef",
    "writes": 2,
    "version": 9,
    "ranges": [[0, 100], [200, 300]],
    "last_error": None,
    "has_loss": False,
}

text = st.text(max_size=20, alphabet=st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]))
integer = st.integers(0, MAX_SECONDS)
seconds = st.floats(-MAX_SECONDS, MAX_SECONDS)
offset = st.integers(0, MAX_SIZE)

tickets = st.fixed_dictionaries(
    {
        "uuid": st.uuids().map(str),
        "size": offset,
        "url": text.map("nbd:unix:/{}".format),
        "ops": st.sampled_from([["read"], ["write"], ["read", "write"]]),
        "timeout": integer,
    },
    optional={
        "inactivity_timeout": integer,
        "transfer_id": text,
        "filename": text,
        "sparse": st.booleans(),
        "dirty": st.booleans(),
    },
)
records = st.builds(
    record.Record,
    ticket=tickets.map(ticket.parse),
    inactivity_timeout=integer,
    remaining=seconds,
    idle=seconds,
    age=seconds,
    tag=st.integers(0, 2**64 - 1).map("{:016x}".format),
    writes=integer,
    version=integer,
    ranges=st.lists(st.tuples(offset, offset).map(lambda pair: tuple(sorted(pair)))).map(tuple),
    last_error=st.none() | text,
    has_loss=st.booleans(),
    lifetime=st.none() | seconds,
)


@given(records)
def test_there_and_back(one):
    """Every key of a ticket comes along, also one that is new."""
    assert record.parse(json.loads(json.dumps(one.describe()))) == one


def test_parse():
    found = record.parse(DOCUMENT)
    assert found.ranges == ((0, 100), (200, 300))
    # There may be a million of them.
    assert "ranges" not in repr(found)


@pytest.mark.parametrize(
    "name, value",
    [
        ("writes", 2**63 - 1),
        ("version", 2**63 - 1),
        ("last_error", 64 * 1024 * "x"),
        ("ranges", [[0, MAX_SIZE], [5, 5]]),
    ],
)
def test_largest_and_smallest_values(name, value):
    assert record.parse({**DOCUMENT, name: value}).describe()[name] == value


@pytest.mark.parametrize(
    "name, value",
    [
        ("ticket", None),
        ("ticket", {"uuid": UUID}),
        ("inactivity_timeout", -1),
        ("remaining", "soon"),
        ("remaining", True),
        ("remaining", float("nan")),
        ("idle", float("inf")),
        ("age", -MAX_SECONDS - 1),
        ("tag", "0123456789ABCDEF"),
        ("tag", "0123456789abcdef\n"),
        ("tag", 7),
        ("writes", 1.5),
        ("writes", 2**63),
        ("version", -1),
        ("ranges", None),
        ("ranges", [[0]]),
        ("ranges", [[2, 1]]),
        ("ranges", [[-1, 1]]),
        ("ranges", [[0, MAX_SIZE + 1]]),
        ("ranges", [[0, True]]),
        ("ranges", ["ab"]),
        ("last_error", 5),
        ("last_error", (64 * 1024 + 1) * "x"),
        ("lifetime", "long"),
        ("has_loss", None),
    ],
)
def test_bad_value(name, value):
    with pytest.raises(errors.InvalidTicket) as caught:
        record.parse({**DOCUMENT, name: value})
    assert UUID not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in DOCUMENT if name not in ("last_error", "has_loss")])
def test_missing_key(name):
    with pytest.raises(errors.InvalidTicket):
        record.parse({key: value for key, value in DOCUMENT.items() if key != name})


@pytest.mark.parametrize("document", [None, [], UUID])
def test_no_object(document):
    with pytest.raises(errors.InvalidTicket, match="a JSON object"):
        record.parse(document)


def test_secret_is_not_shown():
    with pytest.raises(errors.InvalidTicket) as caught:
        record.parse({**DOCUMENT, "tag": UUID})
    assert UUID not in str(caught.value)
    assert UUID not in repr(record.parse(DOCUMENT))


def test_url_that_is_served_no_more():
    def check_url(url):
        raise errors.InvalidValue("url", url, "another one")

    with pytest.raises(errors.InvalidTicket, match="another one"):
        record.parse(DOCUMENT, check_url)
