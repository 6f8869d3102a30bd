from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.httpd import framing
from ovirt_imageio.httpd.head import Head, Headers
from ovirt_imageio.httpd.refusal import Refusal


def make(version=(1, 1), **fields) -> Head:
    return Head("PUT", "/", version, Headers({name.replace("_", "-"): value for name, value in fields.items()}))


def test_longest_line_between_chunks():
    assert framing.CHUNK_LINE_LIMIT == 4096


@pytest.mark.parametrize("value, length", [("0", 0), ("5", 5), ("007", 7), ("9" * 19, 10**19 - 1)])
def test_content_length(value, length):
    assert framing.body_length(make(content_length=value)) == length


def test_no_body():
    assert framing.body_length(make()) == 0


@pytest.mark.parametrize("value", ["", "x", "+5", "-5", "5 5", "5, 5", "5,6", "1_0", "0x5", "5.0", "\xb2", "9" * 20])
def test_bad_content_length(value):
    with pytest.raises(Refusal) as info:
        framing.body_length(make(content_length=value))
    assert (info.value.status, info.value.close) == (400, True)


@pytest.mark.parametrize("value", ["chunked", "Chunked"])
def test_chunked(value):
    assert framing.body_length(make(transfer_encoding=value)) is None


@pytest.mark.parametrize(
    "head, status",
    [
        (make(transfer_encoding="chunked", content_length="5"), 400),
        (make(transfer_encoding="chunked", content_length="x"), 400),
        (make((1, 0), transfer_encoding="chunked"), 400),
        (make(transfer_encoding="gzip"), 501),
        (make(transfer_encoding="gzip, chunked"), 501),
        (make(transfer_encoding="chunked, chunked"), 501),
        (make(transfer_encoding=""), 501),
    ],
)
def test_bad_transfer_encoding(head, status):
    with pytest.raises(Refusal) as info:
        framing.body_length(head)
    assert (info.value.status, info.value.close) == (status, True)


def test_expects_continue():
    assert framing.expects_continue(make(expect="100-Continue"))
    assert not framing.expects_continue(make())
    assert not framing.expects_continue(make(expect="else"))
    assert not framing.expects_continue(make((1, 0), expect="100-continue"))


@pytest.mark.parametrize(
    "version, value, expected",
    [
        ((1, 1), None, True),
        ((1, 1), "keep-alive", True),
        ((1, 1), "other", True),
        ((1, 1), "Close", False),
        ((1, 1), "upgrade, CLOSE", False),
        ((1, 0), None, False),
        ((1, 0), "Keep-Alive", True),
        ((1, 0), "keep-alive, close", False),
        ((1, 0), "other", False),
    ],
)
def test_keeps_alive(version, value, expected):
    fields = {} if value is None else {"connection": value}
    assert framing.keeps_alive(make(version, **fields)) is expected


@pytest.mark.parametrize("line, size", [(b"0", 0), (b"a", 10), (b"00FF", 255), (b"5;name=value", 5), (b"5 ; x", 5)])
def test_chunk_size(line, size):
    assert framing.parse_chunk_size(line) == size


@pytest.mark.parametrize("line", [b"", b"x", b"-5", b"+5", b"0x5", b" 5", b"5 5", b"5\0", b"5;\n", b"1" * 17, b"1_0"])
def test_bad_chunk_size(line):
    with pytest.raises(Refusal) as info:
        framing.parse_chunk_size(line)
    assert (info.value.status, info.value.close) == (400, True)


@given(st.binary(max_size=40))
def test_any_chunk_line_is_parsed_or_refused(line):
    try:
        assert framing.parse_chunk_size(line) >= 0
    except Refusal as refusal:
        assert refusal.status == 400


@pytest.mark.parametrize(
    "head, protocols",
    [
        (make(connection="upgrade", upgrade="nbd"), ("nbd",)),
        (make(connection="keep-alive, Upgrade", upgrade="h2c,  NBD "), ("h2c", "nbd")),
        (make(connection="upgrade", upgrade="nbd", content_length="0"), ("nbd",)),
        (make(upgrade="nbd"), ()),
        (make(connection="keep-alive", upgrade="nbd"), ()),
        (make(connection="upgrade"), ()),
        (make((1, 0), connection="upgrade", upgrade="nbd"), ()),
        # A body would have to be read first.
        (make(connection="upgrade", upgrade="nbd", content_length="1"), ()),
        (make(connection="upgrade", upgrade="nbd", transfer_encoding="chunked"), ()),
    ],
)
def test_upgrades(head, protocols):
    assert framing.upgrades(head) == protocols
