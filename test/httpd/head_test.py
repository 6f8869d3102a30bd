from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.httpd import head
from ovirt_imageio.httpd.refusal import Refusal


def refused(data: bytes) -> int:
    with pytest.raises(Refusal) as info:
        head.parse(data)
    assert info.value.close
    return info.value.status


def test_parse():
    parsed = head.parse(b"GET /images/1?a=b HTTP/1.1\r\nHost: x\r\nRange:bytes=0-1  \r\nRANGE: \t2\r\nEmpty:")
    assert parsed.method == "GET"
    assert parsed.target == "/images/1?a=b"
    assert parsed.version == (1, 1)
    assert parsed.headers == {"host": "x", "range": "bytes=0-1, 2", "empty": ""}


def test_no_fields():
    assert head.parse(b"GET / HTTP/1.0").headers == {}


@pytest.mark.parametrize("version, status", [("1.0", None), ("1.1", None), ("1.9", None), ("0.9", 505), ("2.0", 505)])
def test_version(version, status):
    data = f"GET / HTTP/{version}".encode()
    if status is None:
        assert head.parse(data).version == tuple(map(int, version.split(".")))
    else:
        assert refused(data) == status


BAD = {
    "one word": (b"GET", 400),
    "two words": (b"GET /", 400),
    "four words": (b"GET / HTTP/1.1 x", 400),
    "two blanks": (b"GET  / HTTP/1.1", 400),
    "no method": (b" / HTTP/1.1", 400),
    "method": (b"G(T / HTTP/1.1", 400),
    "lower case version": (b"GET / http/1.1", 400),
    "version without minor": (b"GET / HTTP/2", 505),
    "long version": (b"GET / HTTP/" + b"9" * 4000, 505),
    "version is no number": (b"GET / HTTP/x.y", 400),
    "http2 preface": (b"PRI * HTTP/2.0", 505),
    "control in target": (b"GET /\x01 HTTP/1.1", 400),
    "bare line feed in request line": (b"GET / HTTP/1.1\nHost: x", 400),
    "bare line feed in fields": (b"GET / HTTP/1.1\r\nA: b\nC: d", 400),
    "bare carriage return": (b"GET / HTTP/1.1\r\nA: b\rC: d", 400),
    "NUL in field": (b"GET / HTTP/1.1\r\nA: b\0", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a", 400),
    "half an empty line before": (b"\nGET / HTTP/1.1", 400),
    "the other half": (b"\rGET / HTTP/1.1", 400),
    "only that": (b"\r", 400),
    "no colon": (b"GET / HTTP/1.1\r\nA", 400),
    "empty name": (b"GET / HTTP/1.1\r\n: x", 400),
    "blank before colon": (b"GET / HTTP/1.1\r\nA : x", 400),
    "folded": (b"GET / HTTP/1.1\r\nA: x\r\n y", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01", 400),
    "binary": (bytes(range(256)), 400),
}


@pytest.mark.parametrize("name", BAD)
def test_bad(name):
    data, status = BAD[name]
    assert refused(data) == status


def test_request_line_limit():
    longest = b"GET /" + b"a" * (4096 - len(b"GET / HTTP/1.1\r\n")) + b" HTTP/1.1"
    assert len(longest) == 4094
    assert head.parse(longest).method == "GET"
    assert head.parse(longest + b"\r\nA: b").headers.get("a") == "b"
    assert refused(longest.replace(b"/", b"/a", 1)) == 414
    assert refused(longest.replace(b"/", b"/a", 1) + b"\r\nA: b") == 414


def test_field_limit():
    field = b"a: " + b"x" * 65533
    assert len(field) == 65536
    assert len(head.parse(b"GET / HTTP/1.1\r\n" + field).headers.get("a")) == 65533
    assert refused(b"GET / HTTP/1.1\r\n" + field + b"x") == 431


def test_fields_limit():
    lines = [b"a%d: b" % i for i in range(99)]
    assert len(head.parse(b"\r\n".join([b"GET / HTTP/1.1", *lines])).headers) == 99
    assert refused(b"\r\n".join([b"GET / HTTP/1.1", *lines, b"a: b"])) == 431


def test_head_limit():
    lines = [b"GET / HTTP/1.1", *[b"a: " + b"x" * 60000] * 2]
    room = head.HEAD_LIMIT - len(b"\r\n".join(lines)) - len(b"\r\na: ")
    assert head.parse(b"\r\n".join([*lines, b"a: " + b"x" * room]))
    assert refused(b"\r\n".join([*lines, b"a: " + b"x" * (room + 1)])) == 431


def test_numbers():
    assert head.END == b"\r\n\r\n"
    assert head.HEAD_LIMIT == 131072


def test_check_prefix_endless():
    line = b"GET / HTTP/1.1\r\n"
    # Three bytes of the end may be there.
    head.check_prefix(line + b"x" * (head.HEAD_LIMIT - len(line) + 3))
    with pytest.raises(Refusal) as info:
        head.check_prefix(line + b"x" * (head.HEAD_LIMIT - len(line) + 4))
    assert info.value.status == 431


PREFIXES = {
    b"\r": None,
    b"G": None,
    b"GET / HTTP/1.1\r\n": None,
    b"x" * 4095: None,
    b"\n": 400,
    b"\r\n": 400,
    b"\rG": 400,
    b" ": 400,
    b"\x16\x03": 400,
    b"\xff": 400,
    b"GET / HTTP/1.1\n": 400,
    b"x\n": 400,
    b"x" * 4096: 414,
    b"x" * 4096 + b"\r\n": 414,
}


@pytest.mark.parametrize("data", PREFIXES, ids=lambda data: repr(data[:20]))
def test_check_prefix(data):
    assert outcome(head.check_prefix, data) == PREFIXES[data]


def test_what_is_refused_first_decides_the_status():
    assert outcome(head.parse, b"GET / HTTP/1.1\n" + b"x" * 5000) == 400
    assert outcome(head.parse, b"\x16 HTTP/2.0") == 400


def outcome(action, *arguments):
    """Return what an action returns, or the status that it refuses with."""
    try:
        return action(*arguments)
    except Refusal as refusal:
        return refusal.status


LINES = st.sampled_from([b"GET / HTTP/1.1", b"a: b", b"\n", b"a\n", b"", b" x", b"x", b"\xff: \xff"])
HEADS = st.one_of(st.binary(min_size=1), st.lists(LINES, min_size=1).map(b"\r\n".join).filter(bool))


@given(HEADS)
def test_any_bytes_are_parsed_or_refused(data):
    result = outcome(head.parse, data)
    if isinstance(result, head.Head):
        assert data.startswith(result.method.encode())
        assert isinstance(outcome(head.split_target, result.target), (tuple, int))
    else:
        assert result in (400, 414, 431, 505)


@given(st.one_of(HEADS, st.builds(lambda n: b"GET /" + b"x" * n + b" HTTP/1.1", st.integers(4000, 4200))))
def test_a_prefix_is_refused_only_if_the_whole_is(data):
    whole = outcome(head.parse, data)
    sent = data + head.END
    for end in range(len(sent) - 1, 0, -1 - len(data) // 200):
        prefix = outcome(head.check_prefix, sent[:end])
        assert prefix is None or prefix == whole


TARGETS = {
    "/": ("/", ""),
    "/images/1": ("/images/1", ""),
    "/a?b=c?d": ("/a", "b=c?d"),
    "/images%2fid": ("/images/id", ""),
    "/a/../b": ("/a/../b", ""),
    "/%zz%": ("/%zz%", ""),
    "/%ff": ("/\ufffd", ""),
    "/%d7%a9": ("/\u05e9", ""),
    "/\xd7\xa9": ("/\u05e9", ""),
    "http://host/info/?x": ("/info/", "x"),
    "HTTPS://host:1/a": ("/a", ""),
    "http://host": ("/", ""),
    "http://host/info/": ("/info/", ""),
    "http://host//info": ("/info", ""),
    "http://host?a=b": ("/", "a=b"),
    "*": ("*", ""),
    "host:80": ("host:80", ""),
    "//a//b": ("/a//b", ""),
}


@pytest.mark.parametrize("target", TARGETS)
def test_split_target(target):
    assert head.split_target(target) == TARGETS[target]


def test_split_target_nul():
    with pytest.raises(Refusal) as info:
        head.split_target("/a%00b")
    assert info.value.status == 400


def test_split_query():
    assert head.split_query("") == {}
    assert head.split_query("a=1&a=2&b&c=%d7%a9&d=x+y") == {"a": "2", "b": "", "c": "\u05e9", "d": "x y"}


@pytest.mark.parametrize(
    "data, rest", [(b"\r\n\r\nGET", b"GET"), (b"\r\n\r", b"\r"), (b"\n\r\n", b"\n\r\n"), (b"", b"")]
)
def test_skip_empty_lines(data, rest):
    buffer = bytearray(data)
    head.skip_empty_lines(buffer)
    assert buffer == rest


@pytest.mark.parametrize("data, method", [(b"HEAD / HT", "HEAD"), (b"HEAD", ""), (b"GET / ", ""), (b"", "")])
def test_method_of(data, method):
    assert head.method_of(data) == method
