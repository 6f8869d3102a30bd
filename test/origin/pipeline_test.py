"""Several requests under way: order, content, refusals, and servers that leave."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import pytest
from fakes.origin import TICKET_ID, DiskOrigin, ScriptedOrigin

from ovirt_imageio import errors
from ovirt_imageio.origin import pipeline as pipelines
from ovirt_imageio.origin.connection import Lost
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.pipeline import Frame, Pipeline
from ovirt_imageio.origin.server import Approach

DATA = bytes(range(256)) * 40


@contextlib.contextmanager
def pipelined(url: str) -> Iterator[Pipeline]:
    with contextlib.closing(Image(url)) as image:
        pipeline = Pipeline(image)
        yield pipeline
        pipeline.drop()


def framed(data: bytes) -> Frame:
    frame = Frame(len(data))
    frame.view[:] = data
    return frame


def taker(pieces: list[bytes]):
    def take(reply) -> None:
        pieces.append(reply.read(100_000))

    return take


def test_reads_come_in_order():
    with DiskOrigin(DATA) as origin, pipelined(origin.url) as pipeline:
        for offset in (0, 5000, 100):
            pipeline.read(offset, 50)
        assert len(pipeline) == 3
        pieces: list[bytes] = []
        for _ in range(3):
            pipeline.finish(taker(pieces))
        assert pieces == [DATA[offset : offset + 50] for offset in (0, 5000, 100)]
        assert len(pipeline) == 0


def test_writes_and_zeroes():
    with DiskOrigin(DATA) as origin, pipelined(origin.url) as pipeline:
        pipeline.zero(0, 1000)
        pipeline.stream(500, 3, lambda sink: sink.write(memoryview(b"abc")))
        pipeline.write(600, framed(b"frame"), 5)
        pipeline.zero(2000, 10)
        for _ in range(4):
            pipeline.finish()
        assert origin.data[:1000] == bytes(500) + b"abc" + bytes(97) + b"frame" + bytes(395)
        assert origin.data[2000:2010] == bytes(10)
        puts = [path for method, path, _ in origin.requests if method == "PUT"]
        assert [path.rpartition("?")[2] for path in puts] == ["flush=n", "flush=n"]


def test_frame_can_be_used_again_at_once():
    frame = Frame(4)
    with DiskOrigin(DATA) as origin, pipelined(origin.url) as pipeline:
        for number in range(10):
            frame.view[:] = b"%04d" % number
            pipeline.write(4 * number, frame, 4)
        for _ in range(10):
            pipeline.finish()
        assert origin.data[:40] == b"".join(b"%04d" % number for number in range(10))


@pytest.mark.parametrize("length", [0, 1, 100])
def test_head_comes_right_before_the_body(length):
    frame = framed(bytes(range(100)))
    assert frame.join(b"head", length) == b"head" + bytes(range(length))
    assert frame.join(b"h" * pipelines.HEAD_ROOM, length) == b"h" * pipelines.HEAD_ROOM + bytes(range(length))


def test_head_that_is_too_long_is_not_cut():
    with pytest.raises(ValueError):
        framed(b"body").join(b"h" * (pipelines.HEAD_ROOM + 1), 4)


def test_old_server_flushes_each_request():
    with DiskOrigin(DATA, features=("zero",)) as origin, pipelined(origin.url) as pipeline:
        pipeline.zero(0, 10)
        pipeline.finish()
        assert origin.messages == [{"op": "zero", "offset": 0, "size": 10, "flush": True}]


def test_refusal_has_status_and_words():
    with DiskOrigin(DATA) as origin, pipelined(origin.url) as pipeline:
        origin.refusals[("GET", "")] = (403, f"No such ticket {TICKET_ID}", {})
        pipeline.read(0, 10)
        with pytest.raises(errors.OriginError) as error:
            pipeline.finish()
    assert error.value.status == 403
    assert TICKET_ID not in str(error.value)


def test_refusal_in_the_middle_of_a_body():
    def refuse(wire) -> None:
        wire.options()
        wire.read_head()
        wire.answer(403, b"Enough", "Connection: close\r\n")
        wire.reset()

    def send(sink) -> None:
        for _ in range(1000):
            sink.write(memoryview(bytes(1024**2)))

    # Whether its words survive the reset is up to the kernel.
    refused = pytest.raises((errors.OriginError, Lost))
    with ScriptedOrigin(refuse) as origin, pipelined(origin.url) as pipeline, refused:
        pipeline.stream(0, 1000 * 1024**2, send)


def test_refusal_of_a_frame_that_cannot_be_sent():
    def refuse(wire) -> None:
        wire.options()
        wire.read_head()
        wire.answer(507, b"No space left", "Connection: close\r\n")
        wire.reset()

    def write_until_refused(pipeline: Pipeline) -> None:
        while True:
            pipeline.write(0, frame, 1024**2)

    frame = Frame(1024**2)
    refused = pytest.raises((errors.OriginError, Lost))
    with ScriptedOrigin(refuse) as origin, pipelined(origin.url) as pipeline, refused:
        write_until_refused(pipeline)


def test_server_does_not_wait_for_what_cannot_be_sent():
    """Both sides waited for each other until a time-out: here longer than that of the test."""

    def fail(sink) -> None:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    with DiskOrigin(DATA) as origin, contextlib.closing(Image(origin.url, Approach(read_timeout=1000))) as image:
        pipeline = Pipeline(image)
        pipeline.zero(0, 1000)
        with pytest.raises(errors.OriginError, match="Expected 3 bytes, got only 0"):
            pipeline.stream(500, 3, fail)
        pipeline.drop()


def test_server_that_closes_after_an_answer_loses_the_others():
    def close(wire) -> None:
        wire.options()
        wire.read_head()
        wire.answer(206, b"x" * 10, "Content-Range: bytes 0-9/100\r\nConnection: close\r\n")
        wire.read_head()

    with ScriptedOrigin(close) as origin, pipelined(origin.url) as pipeline:
        pipeline.read(0, 10)
        pipeline.read(10, 10)
        with pytest.raises(Lost):
            pipeline.finish()
            pipeline.finish()


def test_answer_to_another_range_is_refused():
    def lie(wire) -> None:
        wire.options()
        wire.read_head()
        wire.answer(206, b"x" * 10, "Content-Range: bytes 5-14/100\r\n")

    with ScriptedOrigin(lie) as origin, pipelined(origin.url) as pipeline:
        pipeline.read(0, 10)
        with pytest.raises(errors.StorageError, match="another range"):
            pipeline.finish()


def test_after_a_drop_it_connects_again():
    with DiskOrigin(DATA) as origin, pipelined(origin.url) as pipeline:
        pipeline.read(0, 10)
        pipeline.drop()
        pieces: list[bytes] = []
        pipeline.read(20, 10)
        pipeline.finish(taker(pieces))
        assert pieces == [DATA[20:30]]


def test_connection_serves_the_backend_in_between():
    with DiskOrigin(DATA) as origin, contextlib.closing(Image(origin.url)) as image:
        pipeline = Pipeline(image)
        pipeline.read(0, 10)
        pipeline.finish(taker([]))
        image.flush()
        pipeline.read(0, 10)
        pipeline.finish(taker([]))
        assert len(set(id(connection) for connection in origin.servers[0].connections)) == 1
