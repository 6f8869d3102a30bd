"""Raw disks through pipes: uploaded from standard input, downloaded to standard output.

    stdin ──pieces──> Input ── the copy engine ──> image          zeroes are found, and not sent
    image ── the copy engine ──> Output ──> stdout                zeroes are not fetched, but written

One worker moves the tasks in order. A stream cannot go back: Output drops what comes twice after a lost connection,
and Input keeps what may have to be sent again.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import threading
from collections import deque
from collections.abc import Iterator
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.client.borrowed import BorrowedDisk
from ovirt_imageio.client.copy import lanes, plan
from ovirt_imageio.client.copy.reach import NEAR
from ovirt_imageio.client.errors import SizeMismatch, translated
from ovirt_imageio.client.listing import list_extents
from ovirt_imageio.client.transfer import TransferOptions, spare_after
from ovirt_imageio.geometry import blocks
from ovirt_imageio.geometry.extent import Extent, ZeroExtent
from ovirt_imageio.relay import Progress, Sink, buffers, fill
from ovirt_imageio.storage.zero import is_zero

__all__ = ["Input", "Output", "download", "upload"]

# How much is read at once, looked at, and sent with one request.
PIECE = 1024**2


def upload(
    stream: io.BufferedIOBase, url: str, cafile: Optional[str], options: TransferOptions, disk_is_zero: bool = False
) -> None:
    """Upload what a stream has until it ends; the rest of the image becomes zero.

    Raises SizeMismatch when the stream has more than the image, after as much as fits was sent.
    """
    with translated(), contextlib.ExitStack() as stack:
        remote = options.remote(url, cafile)
        stack.callback(remote.close)
        first = remote.connect()
        remote.spare(first)
        source = Input(stream, first.size())
        options.reporter.begin(source.size())
        tasks = plan.plan(source.extents(), plan.Rules(zero=not disk_is_zero, max_copy=PIECE))
        options.went(remote, first, "http", "full")
        options.copy(tasks, functools.partial(lanes.UploadLane, lambda: source, remote.open), 1, None, name="upload")


def download(url: str, cafile: Optional[str], stream: io.BufferedIOBase, options: TransferOptions) -> None:
    """Write the whole image to a stream."""
    with translated(), contextlib.ExitStack() as stack:
        remote = options.remote(url, cafile)
        stack.callback(remote.close)
        first = remote.connect()
        stack.callback(first.close)
        target = Output(stream, first.size())
        extents = list_extents(remote, first, "zero", options.retries)
        options.reporter.begin(target.size())
        tasks = plan.plan(extents, plan.Rules(zero=False, hole=False, max_gap=NEAR.max_gap))
        options.went(remote, first, "http", "full")
        options.copy(
            spare_after(tasks, remote, first),
            functools.partial(lanes.DownloadLane, lambda: target, remote.open),
            1,
            None,
            name="download",
            listers=1,
        )
        target.finish()


class Output(Backend):
    """A stream as a disk that is written from its beginning to its end; what is left out is zero.

    Threads: one at a time.
    """

    name = "stdout"

    def __init__(self, stream: io.BufferedIOBase, size: int) -> None:
        self._stream = stream
        self._size = size
        # Where the next byte belongs.
        self._position = 0

    def size(self) -> int:
        """Return the size of the image."""
        return self._size

    def readinto(self, offset: int, view: memoryview) -> int:
        """Never called."""
        raise AssertionError

    def write(self, offset: int, view: memoryview) -> None:
        """Write view at offset, but not what was written before."""
        self._pad(offset)
        fresh = view[self._position - offset :]
        self._write(fresh)

    def zero(self, offset: int, length: int) -> None:
        """Zero a range, now or before what follows."""

    def flush(self) -> None:
        """Pass on what a buffer holds."""
        self._stream.flush()

    def finish(self) -> None:
        """Write what is missing to the end."""
        self._pad(self._size)
        self._stream.flush()

    def close(self) -> None:
        """Close nothing: the stream belongs to others."""

    def _pad(self, offset: int) -> None:
        for _, count in blocks.pieces(self._position, max(0, offset - self._position), buffers.SLOT):
            self._write(buffers.ZEROES[:count])

    def _write(self, view: memoryview) -> None:
        self._position += len(view)
        while view:
            view = view[self._stream.write(view) :]


class Input(BorrowedDisk):
    """A stream as a disk that is listed and read from its beginning to its end.

    Listing it reads the stream, and keeps what is not zero until it was read from here.

    Threads: one lists, another one reads.
    """

    name = "stdin"

    def __init__(self, stream: io.BufferedIOBase, available: int) -> None:
        self._stream = stream
        self._available = available
        self._lock = threading.Lock()
        self._pieces: dict[int, memoryview] = {}
        # Those that were read, and are kept as long as a lost connection may take them along.
        self._read: deque[int] = deque()

    def size(self) -> int:
        """Return the size of the image: its own size is not known before it ends."""
        return self._available

    def extents(self, context: str = "zero", offset: int = 0, length: Optional[int] = None) -> Iterator[Extent]:
        """Yield the extents of the stream, and one of zeroes for what it leaves of the image."""
        assert (context, offset, length) == ("zero", 0, None)
        # Where the zeroes begin that were not told yet: one extent of many pieces is one task.
        told = 0
        for start in itertools.count(0, PIECE):
            view = memoryview(bytearray(PIECE))
            view = view[: fill(self._stream, view)]
            end = start + len(view)
            if end == 0 < self._available:
                # What should have written to the pipe failed: that must not zero a disk.
                raise errors.InvalidValue("stream", "", "a raw disk")
            if end > self._available:
                raise SizeMismatch(end, self._available)
            is_data = not is_zero(view)
            if is_data or start - told >= plan.MAX_ZERO:
                if start > told:
                    yield ZeroExtent(told, start - told, True, False)
                told = start
            if is_data:
                with self._lock:
                    self._pieces[start] = view
                yield ZeroExtent(start, len(view), False, False)
                told = end
            if len(view) < PIECE:
                break
        if told < self._available:
            yield ZeroExtent(told, self._available - told, True, False)

    def readinto(self, offset: int, view: memoryview) -> int:
        """Read a part of one piece."""
        piece = self._find(offset)
        begin = offset % PIECE
        count = min(len(view), len(piece) - begin)
        view[:count] = piece[begin : begin + count]
        return count

    def send_to(self, sink: Sink, offset: int, length: int, progress: Progress) -> None:
        """Send a piece, without a copy."""
        view = self._find(offset)[:length]
        assert len(view) == length
        sink.write(view)
        progress(length)

    def _find(self, offset: int) -> memoryview:
        start = offset - offset % PIECE
        with self._lock:
            if start not in self._read:
                self._read.append(start)
                # A lane has no more tasks under way.
                if len(self._read) > NEAR.requests:
                    del self._pieces[self._read.popleft()]
            return self._pieces[start]
