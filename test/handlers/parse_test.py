"""What requests carry, value by value."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.handlers import parse


def request(query=None, headers=None, body=b"", method="OPTIONS"):
    return SimpleNamespace(
        method=method,
        query=query or {},
        headers=headers or {},
        body=SimpleNamespace(length=len(body), read=lambda limit: body),
    )


def test_a_ticket_id():
    assert parse.ticket_id("x") == "x"
    with pytest.raises(errors.InvalidValue):
        parse.ticket_id("")


def test_a_choice():
    values = {"y": True, "n": False}
    assert parse.choice(request({"flush": "n"}), "flush", values, default=True) is False
    assert parse.choice(request(), "flush", values, default=True) is True
    with pytest.raises(errors.InvalidValue, match="one of n, y"):
        parse.choice(request({"flush": "N"}), "flush", values, default=True)


@given(st.integers(0, 2**63 - 1))
def test_a_natural_number(number):
    assert parse.natural(request({"n": str(number)}), "n", default=None) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", " 1", "1_000", "\u0661", "\u00b2", str(2**63), "9" * 5000])
def test_no_natural_number(text):
    with pytest.raises(errors.InvalidValue):
        parse.natural(request({"n": text}), "n", default=None)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_a_json_object(value):
    import json

    assert parse.json_object(request(body=json.dumps(value).encode())) == value


@given(st.binary(max_size=200))
def test_any_body_is_an_object_or_refused(body):
    try:
        assert isinstance(parse.json_object(request(body=body)), dict)
    except errors.InvalidValue as e:
        assert len(str(e)) < 500


def test_an_upload_needs_a_length_or_chunks():
    assert parse.upload_length(request(headers={"content-length": "3"}, body=b"abc")) == 3
    with pytest.raises(errors.InvalidValue, match="Content-Length"):
        parse.upload_length(request())


def test_where_an_upload_belongs():
    assert parse.upload_range(request()) == (0, None)
    assert parse.upload_range(request(headers={"content-range": "bytes 7-*/*"})) == (7, None)


def test_a_preflight_is_what_a_browser_sends():
    asks = {"origin": "x", "access-control-request-method": "PUT"}
    assert parse.is_preflight(request(headers=asks))
    assert not parse.is_preflight(request(headers=asks, method="GET"))
    assert not parse.is_preflight(request(headers={"access-control-request-method": "PUT"}))
    assert not parse.is_preflight(request(headers={"origin": "x"}))


def test_members():
    message = {"op": "zero", "size": 5, "flush": True}
    assert parse.member(message, "op", ("zero", "flush")) == "zero"
    assert parse.integer(message, "size") == 5
    assert parse.integer(message, "offset", default=7) == 7
    assert parse.boolean(message, "flush", default=False) is True
    assert parse.boolean(message, "other", default=False) is False
    for bad in (True, None, "5", -1, 1.0, 2**63, [], {}):
        with pytest.raises(errors.InvalidValue):
            parse.integer({"size": bad}, "size")
    with pytest.raises(errors.InvalidValue, match="None"):
        parse.integer({}, "size")
