from __future__ import annotations

import pytest
from fakes.sockets import ScriptedSocket, reset, split_at, timeout
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.httpd.body import Body, ChunkedBody, open_body
from ovirt_imageio.httpd.head import Head, Headers
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.stream import open_stream


def make(pieces, ahead=b"", version=(1, 1), **fields):
    """Return a body, its stream and its socket."""
    sock = ScriptedSocket(pieces)
    stream = open_stream(sock, 7)
    stream.ahead = ahead
    headers = Headers({name.replace("_", "-"): value for name, value in fields.items()})
    return open_body(Head("PUT", "/", version, headers), stream), stream, sock


def drain(body, size=1000):
    """Read a source to its end."""
    view = memoryview(bytearray(size))
    data = b""
    while True:
        count = body.readinto(view)
        if not count:
            return data
        data += view[:count]


def refused(action):
    with pytest.raises(Refusal) as info:
        action()
    assert info.value.close
    return info.value.status


def test_no_body():
    body, _, sock = make([b"GET / HTTP/1.1"])
    assert (body.length, body.is_consumed, body.socket) == (0, True, None)
    assert body.read(10) == b""
    assert body.readinto(memoryview(bytearray(1))) == 0
    assert sock.sent == b""


def test_length():
    body, stream, _ = make([b"lo wor", b"ldGET /"], b"hel", content_length="11")
    assert body.length == 11
    assert not body.is_consumed
    assert drain(body, 4) == b"hello world"
    assert body.is_consumed
    # The next request is left alone.
    assert stream.receive() == b"GET /"


def test_short_body():
    body, _, _ = make([b"hello"], content_length="11")
    assert drain(body) == b"hello"
    assert not body.is_consumed


def test_read():
    assert make([b"hel", b"lo"], content_length="5")[0].read(5) == b"hello"
    assert refused(lambda: make([b"hello"], content_length="6")[0].read(5)) == 413
    assert refused(lambda: make([b"hello"], content_length="6")[0].read(10)) == 400


def test_read_chunks():
    assert make([b"5\r\nhello\r\n0\r\n\r\n"], transfer_encoding="chunked")[0].read(5) == b"hello"
    assert refused(lambda: make([b"6\r\nhellos\r\n0\r\n\r\n"], transfer_encoding="chunked")[0].read(5)) == 413


def test_continue_is_sent_once_and_late():
    body, _, sock = make([b"hel", b"lo"], content_length="5", expect="100-continue")
    assert sock.sent == b""
    assert body.read(10) == b"hello"
    assert sock.sent == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_continue_before_chunks():
    body, _, sock = make([b"0\r\n\r\n"], transfer_encoding="chunked", expect="100-continue")
    assert sock.sent == b""
    assert body.read(10) == b""
    assert sock.sent == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_continue_before_socket():
    body, _, sock = make([], content_length="5", expect="100-continue")
    assert body.socket is sock
    assert sock.sent == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_continue_not_needed():
    # The client did not wait; or cannot understand.
    body, _, sock = make([b"lo"], b"hel", content_length="5", expect="100-continue")
    assert body.read(10) == b"hello"
    assert sock.sent == b""
    body, _, sock = make([b"hello"], version=(1, 0), content_length="5", expect="100-continue")
    assert body.read(10) == b"hello"
    assert sock.sent == b""


def test_socket():
    body, stream, sock = make([b"rest"], b"ab", content_length="6")
    # What came ahead has to be taken first.
    assert body.socket is None
    assert body.readinto(memoryview(bytearray(2))) == 2
    assert body.socket is sock
    before = stream.activity()
    body.advance(3)
    assert stream.activity() == before + 3
    assert not body.is_consumed
    body.advance(1)
    assert body.is_consumed
    assert body.socket is None
    stream.is_tls = True
    body, stream, _ = make([], content_length="5")
    stream.is_tls = True
    assert body.socket is None


@pytest.mark.parametrize("open_one", [lambda stream: Body(stream, 5), ChunkedBody])
def test_a_client_that_does_not_wait_is_not_told_to_go_on(open_one):
    sock = ScriptedSocket([b"5\r\nhello\r\n0\r\n\r\n"])
    assert len(drain(open_one(open_stream(sock, 7)))) == 5
    assert sock.sent == b""


def test_smallest_limits():
    def chunked(data):
        return make([data], transfer_encoding="chunked")[0]

    assert chunked(b"0\r\n\r\n").read(0) == b""
    assert chunked(b"1\r\na\r\n0\r\n\r\n").read(1) == b"a"
    for limit in (0, 1):
        with pytest.raises(Refusal) as info:
            chunked(b"2\r\nab\r\n0\r\n\r\n").read(limit)
        assert info.value.status == 413


def test_longest_lines_between_chunks():
    def read(size_line, trailers=b""):
        data = size_line + b"\r\nhello\r\n0\r\n" + trailers + b"\r\n"
        return drain(make([data], transfer_encoding="chunked")[0])

    assert read(b"5;" + b"x" * 4094) == b"hello"
    assert refused(lambda: read(b"5;" + b"x" * 4095)) == 400
    assert read(b"5", b"x: y\r\n" * 99) == b"hello"
    assert refused(lambda: read(b"5", b"x: y\r\n" * 100)) == 400


@pytest.mark.parametrize("fields", [{"content_length": "5"}, {"transfer_encoding": "chunked"}])
def test_stall(fields):
    body, _, _ = make([timeout], **fields)
    with pytest.raises(Refusal, match="7 seconds") as info:
        drain(body)
    assert (info.value.status, info.value.close) == (408, True)


def test_stall_within_chunk():
    assert refused(lambda: drain(make([b"5\r\nhe", timeout], transfer_encoding="chunked")[0])) == 408


@pytest.mark.parametrize("fields", [{"content_length": "5"}, {"transfer_encoding": "chunked"}])
def test_client_gone(fields):
    body, _, _ = make([reset()], **fields)
    with pytest.raises(ClientGone):
        drain(body)


def test_chunks():
    body, stream, _ = make([b"5;a=b\r\nhello\r\n0\r\nTrailer: x\r\n\r\nGET /"], transfer_encoding="chunked")
    assert isinstance(body, ChunkedBody)
    assert (body.length, body.is_consumed, body.socket) == (None, False, None)
    assert body.readinto(memoryview(b"")) == 0
    assert drain(body) == b"hello"
    assert body.is_consumed
    assert drain(body) == b""
    assert stream.receive() == b"GET /"


BAD_CHUNKS = {
    "size": b"x\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "huge size": b"1" * 17 + b"\r\n",
    "longer than its size": b"5\r\nhellos\r\n0\r\n\r\n",
    "endless line": b"5;" + b"x" * 10000,
    "endless trailer": b"0\r\nx: " + b"y" * 10000,
    "NUL in a trailer": b"0\r\nx: y\0\r\n\r\n",
    "trailer without a name": b"0\r\nnothing\r\n\r\n",
    "too many trailers": b"0\r\n" + b"x: y\r\n" * 200 + b"\r\n",
    "bare line feeds": b"5\nhello\n0\n\n",
    "no last chunk": b"5\r\nhello\r\n",
    "ends in chunk": b"5\r\nhel",
    "ends in size": b"5",
    "ends in last chunk": b"0\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_bad_chunks(name):
    assert refused(lambda: drain(make([BAD_CHUNKS[name]], transfer_encoding="chunked")[0])) == 400


def encode(chunks):
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1)), st.lists(st.integers(0, 300)), st.integers(1, 50), st.integers(0, 50))
def test_chunks_in_any_pieces(chunks, cuts, size, ahead):
    data = encode(chunks)
    body, stream, _ = make([*split_at(data[ahead:], cuts), b"next"], data[:ahead], transfer_encoding="chunked")
    assert drain(body, size) == b"".join(chunks)
    assert body.is_consumed
    rest = stream.receive()
    assert rest == b"next"


@given(st.one_of(st.binary(), st.lists(st.sampled_from([b"5\r\n", b"hello", b"\r\n", b"0\r\n", b"x"])).map(b"".join)))
def test_any_chunks_are_decoded_or_refused(data):
    body, _, _ = make([data] if data else [], transfer_encoding="chunked")
    try:
        drain(body)
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        assert body.is_consumed
