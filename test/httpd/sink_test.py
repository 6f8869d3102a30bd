from __future__ import annotations

import pytest
from fakes.sockets import ScriptedSocket

from ovirt_imageio.httpd.sink import BodySink, ChunkedSink, NoSink
from ovirt_imageio.httpd.stream import open_stream


@pytest.fixture
def sock():
    return ScriptedSocket()


@pytest.fixture
def stream(sock):
    return open_stream(sock, 1)


def test_head_leaves_with_the_first_bytes(sock, stream):
    sink = BodySink(stream, b"head:", 6)
    assert sock.writes == []
    sink.write(memoryview(b"abc"))
    assert not sink.is_complete
    sink.write(memoryview(b"def"))
    assert sink.is_complete
    sink.finish()
    assert sock.writes == [b"head:abc", b"def"]


def test_no_bytes(sock, stream):
    sink = BodySink(stream, b"head", 0)
    assert sink.is_complete
    sink.finish()
    sink.finish()
    assert sock.writes == [b"head"]


def test_too_many_bytes(sock, stream):
    with pytest.raises(AssertionError):
        BodySink(stream, b"head", 2).write(memoryview(b"abc"))
    assert sock.sent == b""


def test_socket(sock, stream):
    sink = BodySink(stream, b"head", 5)
    assert sink.socket is sock
    assert sock.sent == b"head"
    sink.advance(2)
    assert not sink.is_complete
    sink.advance(3)
    assert sink.is_complete
    sink.finish()
    assert sock.sent == b"head"


def test_no_socket_over_tls(sock, stream):
    stream.is_tls = True
    assert BodySink(stream, b"head", 5).socket is None
    assert sock.sent == b""


def test_until_the_end_of_the_connection(sock, stream):
    sink = BodySink(stream, b"head:", None)
    sink.write(memoryview(b"abc"))
    sink.finish()
    assert sink.is_complete
    assert sock.sent == b"head:abc"
    assert BodySink(stream, b"", None).socket is sock


def test_chunks(sock, stream):
    sink = ChunkedSink(stream, b"head:")
    assert sink.socket is None
    sink.write(memoryview(b"x" * 17))
    sink.write(memoryview(b""))
    sink.write(memoryview(b"y"))
    assert not sink.is_complete
    sink.finish()
    assert sink.is_complete
    assert sock.writes == [b"head:11\r\n" + b"x" * 17 + b"\r\n", b"1\r\ny\r\n", b"0\r\n\r\n"]


def test_no_chunks(sock, stream):
    sink = ChunkedSink(stream, b"head:")
    sink.finish()
    assert sock.writes == [b"head:0\r\n\r\n"]


def test_no_body(sock, stream):
    sink = NoSink(stream, b"head")
    sink.write(memoryview(b"abc"))
    assert sink.socket is None
    assert sink.is_complete
    sink.advance(5)
    sink.finish()
    assert sock.sent == b"head"
