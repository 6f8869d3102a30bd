"""Range, Content-Range and Content-Disposition: the tables of what real clients send, and their arithmetic."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.geometry import byteranges

SIZE = 1000


@pytest.mark.parametrize(
    ("text", "offset", "length"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=0-1000", 0, 1000),
        ("bytes=999-99999999999999999999", 999, 1),
        ("bytes=5-", 5, 995),
        ("bytes=-1", 999, 1),
        ("bytes=-1000", 0, 1000),
        ("bytes=-5000", 0, 1000),
    ],
)
def test_range(text, offset, length):
    assert byteranges.parse_range(text).resolve(SIZE) == (offset, length)


@pytest.mark.parametrize("text", ["bytes=1000-", "bytes=1000-1000", "bytes=99999999999999999999-", "bytes=-0"])
def test_range_out_of_bounds(text):
    with pytest.raises(errors.RangeNotSatisfiable) as e:
        byteranges.parse_range(text).resolve(SIZE)
    assert e.value.available == SIZE


def test_range_of_an_empty_disk():
    for text in ("bytes=0-", "bytes=0-0", "bytes=-1"):
        with pytest.raises(errors.RangeNotSatisfiable):
            byteranges.parse_range(text).resolve(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=2-1",
        "bytes=0-1,4-5",
        "Bytes=0-1",
        "sectors=0-1",
        "bytes = 0-1",
        "bytes=0 -1",
        "bytes=0-1 ",
        "bytes=0-1\n",
        "bytes=+1-2",
        "bytes=\u0661-2",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_range_malformed(text):
    with pytest.raises(errors.InvalidRange):
        byteranges.parse_range(text)


def test_longest_range():
    """Two numbers of 20 digits: 2**64 has as many."""
    digits = "9" * 20
    assert byteranges.parse_range(f"bytes={digits}-{digits}") == (int(digits), int(digits))
    with pytest.raises(errors.InvalidRange):
        byteranges.parse_range(f"bytes=0{digits}-{digits}")


def test_longest_content_range():
    digits = "9" * 20
    assert byteranges.parse_content_range(f"bytes 0-{digits}/*") == (0, int(digits) + 1)
    with pytest.raises(errors.InvalidValue):
        byteranges.parse_content_range(f"bytes 0-0{digits}/*")


@given(first=st.integers(0, 2**64), span=st.integers(0, 2**64), available=st.integers(1, 2**63))
def test_range_stays_inside(first, span, available):
    spec = byteranges.parse_range(f"bytes={first}-{first + span}")
    try:
        offset, length = spec.resolve(available)
    except errors.RangeNotSatisfiable:
        assert first >= available
    else:
        assert offset == first
        assert 1 <= length <= span + 1
        assert offset + length <= available


@pytest.mark.parametrize(
    ("text", "offset", "length"),
    [
        ("bytes 0-9/10", 0, 10),
        ("bytes 5-9/*", 5, 5),
        ("bytes 5-*/10", 5, None),
        ("bytes 5-*/*", 5, None),
        ("bytes 9-9/10", 9, 1),
    ],
)
def test_content_range_of_an_upload(text, offset, length):
    assert byteranges.parse_content_range(text) == (offset, length)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes */10",
        "bytes *-5/10",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes 10-*/10",
        "bytes 0-1",
        "bytes 0-1/",
        "bytes 0-/10",
        "bytes=0-1/10",
        "sectors 0-1/10",
        "bytes a-b/c",
        "bytes -1-5/10",
        "bytes 0-1/10 ",
        "bytes 0-1/" + "9" * 5000,
    ],
)
def test_content_range_malformed(text):
    with pytest.raises(errors.InvalidValue):
        byteranges.parse_content_range(text)


PIECES = st.sampled_from(["bytes", "=", "-", " ", "/", "*", ",", "0", "7", "18446744073709551616", "\u0661", "\n"])
TEXTS = st.text() | st.lists(PIECES).map("".join) | st.lists(PIECES).map(lambda pieces: "bytes=" + "".join(pieces))


@given(TEXTS, st.integers(0, 2**63))
def test_any_text_is_a_range_or_refused(text, available):
    """Whatever a client asks for, it gets bytes that are there, or an error."""
    try:
        offset, length = byteranges.parse_range(text).resolve(available)
    except (errors.InvalidRange, errors.RangeNotSatisfiable):
        pass
    else:
        assert 0 <= offset < offset + length <= available
    try:
        offset, size = byteranges.parse_content_range(text)
    except errors.InvalidValue:
        pass
    else:
        assert offset >= 0
        assert size is None or size > 0


@given(offset=st.integers(0, 2**63), length=st.integers(1, 2**63), rest=st.integers(0, 2**62))
def test_content_range_round_trip(offset, length, rest):
    text = byteranges.content_range(offset, length, offset + length + rest)
    assert byteranges.parse_content_range(text) == (offset, length)


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (None, "attachment"),
        ("", "attachment"),
        ("disk.qcow2", "attachment; filename=disk.qcow2"),
        ("my disk.raw", "attachment; filename=\"my disk.raw\"; filename*=UTF-8''my%20disk.raw"),
        ("a\r\nSet-Cookie: x", "attachment; filename=\"aSet-Cookie: x\"; filename*=UTF-8''aSet-Cookie%3A%20x"),
        ('a"; filename="b', "attachment; filename=\"a'; filename='b\"; filename*=UTF-8''a%22%3B%20filename%3D%22b"),
        ("../../etc/passwd", "attachment; filename=passwd"),
        ("..\\boot.ini", "attachment; filename=.._boot.ini"),
        # Browsers decode what is not in the extended notation.
        ("%41.raw", "attachment; filename=\"%41.raw\"; filename*=UTF-8''%2541.raw"),
        ('a"b;c\\d.iso', "attachment; filename=\"a'b;c_d.iso\"; filename*=UTF-8''a%22b%3Bc_d.iso"),
    ],
)
def test_content_disposition(filename, expected):
    assert byteranges.content_disposition(filename) == expected


@given(st.text())
def test_content_disposition_forges_nothing(filename):
    header = byteranges.content_disposition(filename)
    assert header.isprintable()
    assert header.count('"') in (0, 2)
    if "filename*=" in header:
        extended = header.rpartition("''")[2]
        assert extended.isascii()
        assert "/" not in urllib.parse.unquote(extended)


@pytest.mark.parametrize(
    ("text", "filename"),
    [
        ("", None),
        ("attachment", None),
        ("attachment; filename=disk.raw", "disk.raw"),
        ('attachment; filename=""', None),
        ('attachment; FileName="my disk.raw"', "my disk.raw"),
        # As older servers write it.
        ("attachment; filename=my %41 disk.raw", "my %41 disk.raw"),
        ("attachment; filename*=UTF-8''%C3%A4%2541", "ä%41"),
    ],
)
def test_parse_filename(text, filename):
    assert byteranges.parse_filename(text) == filename


@given(st.text(st.characters(blacklist_categories=["C", "Z"], blacklist_characters="/\\")))
@example("filename*=UTF-8''x")
@example('%41"; filename=b')
def test_filename_round_trip(filename):
    """A proxy passes on the name that the host has."""
    assert byteranges.parse_filename(byteranges.content_disposition(filename)) == (filename or None)
