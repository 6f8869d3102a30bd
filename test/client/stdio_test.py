"""Streams as disks: every size, zeroes, connections that are lost, and streams that are too long."""

from __future__ import annotations

import io

import pytest
from fakes.origin import DiskOrigin, ScriptedOrigin

from ovirt_imageio import client
from ovirt_imageio.client import stdio
from ovirt_imageio.client.copy import pace
from ovirt_imageio.client.copy.reach import NEAR
from ovirt_imageio.client.transfer import TransferOptions

PIECE = stdio.PIECE
SIZES = [0, 1, 511, 4096, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5]


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(pace, "BACKOFF", 0.001)


def pattern(size: int) -> bytes:
    return (bytes(range(1, 251)) * (size // 250 + 1))[:size]


class Slow(io.BytesIO):
    """Gives, and takes, a few bytes at once."""

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:100_000])

    def write(self, data):
        return super().write(memoryview(data)[:100_000])


@pytest.mark.parametrize("size", SIZES[1:])
def test_upload(size):
    data = pattern(size)
    counts = []
    with DiskOrigin(b"x" * (size + 2 * PIECE)) as origin:
        stdio.upload(Slow(data), origin.url, None, TransferOptions(progress=counts.append))
        assert origin.data == data + bytes(2 * PIECE)
    assert sum(counts) == size + 2 * PIECE


def test_empty_stream_zeroes_nothing():
    with DiskOrigin(b"x" * 10) as origin:
        with pytest.raises(client.InvalidValue, match="expected a raw disk"):
            stdio.upload(io.BytesIO(), origin.url, None, TransferOptions())
        assert origin.data == b"x" * 10
    with DiskOrigin() as origin:
        stdio.upload(io.BytesIO(), origin.url, None, TransferOptions())


def test_upload_sends_no_zeroes():
    data = bytes(PIECE) + b"a" * PIECE + bytes(5 * PIECE) + b"b" * 10
    with DiskOrigin(b"x" * len(data)) as origin:
        stdio.upload(io.BytesIO(data), origin.url, None, TransferOptions())
        assert origin.data == data
        assert [message for message in origin.messages if message["op"] == "zero"] == [
            {"op": "zero", "offset": 0, "size": PIECE, "flush": False},
            {"op": "zero", "offset": 2 * PIECE, "size": 5 * PIECE, "flush": False},
        ]
        assert origin.methods().count("PUT") == 2
        assert origin.messages[-1] == {"op": "flush"}


def test_long_zeroes_are_told_in_time():
    class Endless(io.BytesIO):
        """Zeroes, far more than memory."""

        left = 1000

        def readinto(self, view):
            self.left -= 1
            return len(view) if self.left else 0

    extents = list(stdio.Input(Endless(), 1000 * PIECE).extents())
    assert [extent.length // PIECE for extent in extents] == [128] * 7 + [104]


def test_upload_to_a_disk_that_is_zero():
    data = bytes(PIECE) + b"a" * PIECE + bytes(PIECE)
    with DiskOrigin(bytes(len(data))) as origin:
        stdio.upload(io.BytesIO(data), origin.url, None, TransferOptions(), disk_is_zero=True)
        assert origin.data == data
        assert [message["op"] for message in origin.messages] == ["flush"]


@pytest.mark.parametrize("size", [1, PIECE, PIECE + 1])
def test_stream_is_too_long(size):
    with DiskOrigin(bytes(size)) as origin:
        with pytest.raises(client.SizeMismatch, match=f"only {size}"):
            stdio.upload(io.BytesIO(pattern(size + 1)), origin.url, None, TransferOptions())
        assert len(origin.data) == size


def test_upload_after_a_lost_connection():
    """What was on its way is sent again, though it cannot be read again."""
    data = pattern(3 * PIECE)
    got = {}

    def take(wire, last):
        while len(got) < last and (head := wire.read_head()):
            if head.startswith("PATCH"):
                wire.read(int(head.split("content-length: ")[1].split("\r\n")[0]))
            else:
                offset = int(head.split("bytes ")[1].split("-")[0])
                got[offset] = wire.read(PIECE)
            if len(got) < last:
                wire.answer()

    def lose(wire):
        wire.options(size=len(data), transfer_id="t", max_writers=1)
        take(wire, 2)
        got.clear()
        wire.reset()

    def go_on(wire):
        take(wire, 99)

    with ScriptedOrigin(lose, go_on) as origin:
        stdio.upload(io.BytesIO(data), origin.url, None, TransferOptions(retries=3))
    assert b"".join(got[offset] for offset in sorted(got)) == data[min(got) :]
    assert max(got) == 2 * PIECE


def test_only_what_may_be_lost_is_kept():
    data = pattern(100 * PIECE)
    source = stdio.Input(io.BytesIO(data), len(data))
    view = memoryview(bytearray(PIECE))
    for extent in source.extents():
        assert source.readinto(extent.start, view) == PIECE
        assert view.tobytes() == data[extent.start : extent.start + PIECE]
        assert len(source._pieces) <= NEAR.requests + 1


@pytest.mark.parametrize("size", SIZES)
def test_download(size):
    stream, counts = Slow(), []
    with DiskOrigin(pattern(size)) as origin:
        stdio.download(origin.url, None, stream, TransferOptions(progress=counts.append))
    assert stream.getvalue() == pattern(size)
    assert sum(counts) == size


def test_download_fetches_no_zeroes():
    data = bytearray(10 * PIECE)
    data[2 * PIECE : 3 * PIECE] = b"a" * PIECE
    data[6 * PIECE : 6 * PIECE + 512] = b"b" * 512
    stream = io.BytesIO()
    with DiskOrigin(data) as origin:
        origin.extents["zero"] = [
            {"start": 0, "length": 2 * PIECE, "zero": True, "hole": True},
            {"start": 2 * PIECE, "length": PIECE, "zero": False, "hole": False},
            {"start": 3 * PIECE, "length": 3 * PIECE, "zero": True, "hole": False},
            {"start": 6 * PIECE, "length": 512, "zero": False, "hole": False},
            {"start": 6 * PIECE + 512, "length": 4 * PIECE - 512, "zero": True, "hole": False},
        ]
        stdio.download(origin.url, None, stream, TransferOptions())
        ranges = [headers.get("range") for method, path, headers in origin.requests if "extents" not in path]
    assert stream.getvalue() == data
    assert [text for text in ranges if text] == ["bytes=2097152-3145727", "bytes=6291456-6291967"]


def test_download_after_a_lost_connection():
    """What was written is not written twice."""
    data = pattern(PIECE)

    def lose(wire):
        wire.options(size=len(data), features=[], max_readers=1)
        wire.read_head()
        wire.send(b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-%d/*\r\nContent-Length: %d\r\n\r\n" % (PIECE - 1, PIECE))
        wire.send(data[: PIECE // 2])
        wire.reset()

    def go_on(wire):
        assert "bytes=0-" in wire.read_head()
        wire.answer(206, data, f"Content-Range: bytes 0-{PIECE - 1}/*\r\n")

    stream = io.BytesIO()
    with ScriptedOrigin(lose, go_on) as origin:
        stdio.download(origin.url, None, stream, TransferOptions(retries=3))
    assert stream.getvalue() == data


def test_reader_left():
    class Left(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError(32, "Broken pipe")

    with DiskOrigin(pattern(10)) as origin, pytest.raises(BrokenPipeError):
        stdio.download(origin.url, None, Left(), TransferOptions(retries=3))
