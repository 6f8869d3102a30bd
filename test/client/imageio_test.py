"""ImageioClient: bounds, streams, and the end."""

from __future__ import annotations

import io

import pytest
from fakes.origin import DiskOrigin

from ovirt_imageio.client import errors
from ovirt_imageio.client.imageio import ImageioClient

DATA = bytes(range(256)) * 3000


def test_read_and_write():
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url) as client:
        buffer = bytearray(100)
        assert client.read(1000, buffer) == 100
        assert buffer == DATA[1000:1100]
        assert client.write(50, b"abc") == 3
        assert origin.data[50:53] == b"abc"
        assert (client.max_readers, client.max_writers) == (8, 4)


@pytest.mark.parametrize("offset", [-1, len(DATA) - 9, len(DATA) + 1])
def test_out_of_bounds_sends_nothing(offset):
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url) as client:
        client.size()
        before = len(origin.requests)
        with pytest.raises(RuntimeError, match="out of bounds"):
            client.read(offset, bytearray(10))
        with pytest.raises(RuntimeError, match="out of bounds"):
            client.write(offset, bytes(10))
        assert len(origin.requests) == before


def test_stream_from_a_reader_is_one_request():
    with DiskOrigin(bytes(len(DATA))) as origin, ImageioClient(origin.url, buffer_size=128 * 1024) as client:
        reader = io.BytesIO(DATA + b"not ours")
        client.read_from(reader, 0, len(DATA))
        assert origin.data == DATA
        assert origin.methods().count("PUT") == 1
        assert reader.read() == b"not ours"


def test_stream_to_a_writer_is_one_request():
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url, buffer_size=128 * 1024) as client:
        writer = io.BytesIO()
        client.size()
        before = origin.methods().count("GET")
        client.write_to(writer, 100, 600_000)
        assert writer.getvalue() == DATA[100:600_100]
        assert origin.methods().count("GET") == before + 1


class Slow:
    """A writer that takes a little at a time."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, view) -> int:
        self.data += bytes(view[:70_000])
        return len(view[:70_000])


def test_writer_that_takes_a_part():
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url) as client:
        writer = Slow()
        client.write_to(writer, 0, 300_000)
        assert writer.data == DATA[:300_000]


def test_reader_that_ends_early():
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url) as client, pytest.raises(RuntimeError, match="only 5"):
        client.read_from(io.BytesIO(b"x" * 5), 0, 10)


def test_writing_beyond_the_image():
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url) as client, pytest.raises(RuntimeError):
        client.write_to(io.BytesIO(), len(DATA) - 5, 10)


def test_zero_flush_and_extents():
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url) as client:
        client.zero(10, 20)
        client.flush()
        assert origin.data[10:30] == bytes(20)
        assert origin.messages[-1] == {"op": "flush"}
        assert [extent.length for extent in client.extents()] == [len(DATA)]


def test_refusal():
    with DiskOrigin(DATA) as origin, ImageioClient(origin.url) as client:
        origin.refusals[("PATCH", "")] = (403, "Not permitted", {})
        with pytest.raises(errors.ServerError) as error:
            client.zero(0, 10)
    assert (error.value.code, error.value.message) == (403, "Not permitted")


def test_closed():
    with DiskOrigin(DATA) as origin:
        client = ImageioClient(origin.url)
        client.close()
        client.close()
        for call in (client.size, client.flush, lambda: client.read(0, bytearray(1)), lambda: client.max_readers):
            with pytest.raises(ValueError, match="closed"):
                call()


def test_wrong_buffer_size():
    with pytest.raises(errors.InvalidValue, match="buffer_size"):
        ImageioClient("http://localhost:1/images/x", buffer_size=0)
