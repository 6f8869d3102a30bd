"""One connection to an image on a server, to read and write what one likes.

Knows nothing of images here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Optional, Protocol, Union

from ovirt_imageio import errors
from ovirt_imageio.client.errors import OutOfBounds, UnexpectedEnd, translated
from ovirt_imageio.client.presets import BUFFER_SIZE, CONNECT_TIMEOUT, READ_TIMEOUT
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.origin.image import Image

__all__ = ["ImageioClient"]

Buffer = Union[bytes, bytearray, memoryview]


class Reader(Protocol):
    """Where read_from() reads: a file, for example."""

    def readinto(self, buffer: memoryview) -> Optional[int]:
        """Read into buffer; return how many bytes, 0 at the end."""


class Writer(Protocol):
    """Where write_to() writes: a file, for example."""

    def write(self, buffer: memoryview) -> Optional[int]:
        """Write the buffer; return how many bytes were written, if that may be less than all."""


class ImageioClient:
    """Reads and writes an image on a server, over one connection.

        with ImageioClient(transfer.transfer_url, cafile="ca.pem") as client:
            client.write(0, b"data")
            client.zero(65536, client.size() - 65536)
            client.flush()

    The first argument may be followed by `proxy_url`, the URL of the same image on a proxy, for when that cannot be
    reached. Raises the errors of ovirt_imageio.client; after close() every call raises ValueError.

    Threads: one at a time.
    """

    def __init__(
        self,
        transfer_url: str,
        cafile: Optional[str] = None,
        secure: bool = True,
        proxy_url: Optional[str] = None,
        buffer_size: int = BUFFER_SIZE,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        fingerprint: Optional[str] = None,
    ) -> None:
        if buffer_size <= 0:
            raise errors.InvalidValue("buffer_size", buffer_size, "a positive number of bytes")
        remote = Remote(
            transfer_url,
            cafile,
            secure=secure,
            fingerprint=fingerprint,
            proxy_url=proxy_url,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
        )
        with translated():
            self._image: Optional[Image] = remote.connect()
        self._buffer = memoryview(bytearray(buffer_size))

    @property
    def max_readers(self) -> int:
        """How many connections may read at once."""
        return self._open().abilities.max_readers

    @property
    def max_writers(self) -> int:
        """How many connections may write at once."""
        return self._open().abilities.max_writers

    def size(self) -> int:
        """Return the size of the image."""
        with self._request() as image:
            return image.size()

    def extents(self, context: str = "zero") -> Iterator[Extent]:
        """Yield the extents, "zero" or "dirty"; no other request may be made before all were taken."""
        with self._request() as image:
            yield from image.extents(context)

    def read(self, offset: int, buffer: Union[bytearray, memoryview]) -> int:
        """Fill the buffer with the bytes at offset, and return its length."""
        with self._request() as image, memoryview(buffer) as view:
            self._check_bounds(image, offset, len(view))
            image.readinto(offset, view.cast("B"))
            return len(view)

    def write(self, offset: int, buffer: Buffer) -> int:
        """Write the buffer at offset, and return its length."""
        with self._request() as image, memoryview(buffer) as view:
            self._check_bounds(image, offset, len(view))
            image.write(offset, view.cast("B"))
            return len(view)

    def write_to(self, writer: Writer, offset: int, length: int) -> None:
        """Write a range of the image to a writer, with one request."""
        with self._request() as image:
            try:
                image.send_to(WriterSink(writer), offset, length, lambda count: None)
            except errors.PartialContent as error:
                raise UnexpectedEnd(error.requested, error.available) from None

    def read_from(self, reader: Reader, offset: int, length: int) -> None:
        """Read a range of the image from a reader, with one request."""
        with self._request() as image:
            try:
                image.receive_from(ReaderSource(reader, self._buffer, length), offset, length, lambda count: None)
            except errors.PartialContent as error:
                raise UnexpectedEnd(error.requested, error.available) from None

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes."""
        with self._request() as image:
            image.zero(offset, length)

    def flush(self) -> None:
        """Make what was written survive a power failure."""
        with self._request() as image:
            image.flush()

    def close(self) -> None:
        """Close the connection; harmless when repeated."""
        image, self._image = self._image, None
        if image is not None:
            image.close()

    def __enter__(self) -> ImageioClient:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _request(self) -> Iterator[Image]:
        image = self._open()
        with translated():
            yield image

    def _open(self) -> Image:
        if self._image is None:
            raise ValueError("The client is closed")
        return self._image

    def _check_bounds(self, image: Image, offset: int, length: int) -> None:
        size = image.size()
        if offset < 0 or offset + length > size:
            raise OutOfBounds(offset, length, size)


class ReaderSource:
    """The next `length` bytes of anything with readinto() as a source; what follows them is left to the caller."""

    socket = None

    def __init__(self, reader: Reader, buffer: memoryview, length: int) -> None:
        self._reader = reader
        self._buffer = buffer
        self._length = length
        self._rest = buffer[:0]

    def readinto(self, view: memoryview) -> int:
        """Read through the buffer: so the reader is asked for as much at once as the caller wants it to be."""
        if not self._rest:
            wanted = self._buffer[: self._length]
            self._rest = wanted[: self._reader.readinto(wanted) or 0]
            self._length -= len(self._rest)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""


class WriterSink:
    """Anything with write() as a sink."""

    socket = None

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, view: memoryview) -> None:
        """Write all of view."""
        while view:
            count = self._writer.write(view)
            view = view[len(view) if count is None else count :]

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""
