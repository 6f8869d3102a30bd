"""Lanes: how a worker moves requests between a disk here and an image there.

    Upload      local ──send_to──> body of a PUT ; zeroes and flush as PATCH
    Download    answer to a GET ──receive_from──> local ; zeroes and flush here
    Between     two disks of any kind

The first two keep several requests under way, when the server can. Knows backends; knows neither images nor URLs.
"""

from __future__ import annotations

import abc
import functools
import socket
from collections import deque
from typing import Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.http import HttpBackend
from ovirt_imageio.backends.pipeline import Pipeline
from ovirt_imageio.client.plan import COPY, Request
from ovirt_imageio.relay import Progress, Sink, Source, fill
from ovirt_imageio.storage import buffers
from ovirt_imageio.storage.zero import is_zero

__all__ = ["Between", "Download", "Open", "OpenRemote", "Upload", "is_passing"]

# So many requests are under way at once ...
MAX_PENDING = 32
# ... but of large ones only two: while one ends, the next is on its way. More would only be kept from other workers.
LARGE = 1024**2

# Below this, reading into a buffer is cheaper than what a backend does to stream.
SMALL = 256 * 1024

# Answers with which a server tells that it cannot now: time-out, too many requests, and troubles behind a proxy.
PASSING = frozenset([408, 429, 502, 503, 504])

Open = Callable[[], Backend]
OpenRemote = Callable[[], HttpBackend]


class BaseLane(abc.ABC):
    """What all lanes share: both sides are opened when the first request begins, and requests end in order.

    Threads: one, but for `interrupt`.
    """

    def __init__(self, moved: Progress) -> None:
        self._moved = moved
        self._pending: deque[Request] = deque()
        self._buffer = memoryview(b"")

    @property
    def is_busy(self) -> bool:
        """Is a request under way?"""
        return bool(self._pending)

    @property
    def is_full(self) -> bool:
        """Must one end before another one begins?"""
        return len(self._pending) >= self._limit()

    @abc.abstractmethod
    def _limit(self) -> int:
        """Return how many requests may be under way now."""

    def _scratch(self) -> memoryview:
        """Return a buffer of SMALL bytes, which direct I/O accepts."""
        if not self._buffer:
            self._buffer = buffers.aligned(SMALL)
        return self._buffer

    def _send(self, local: Backend, request: Request, sink: Sink) -> None:
        """Send all of a range to a sink."""
        if request.length <= SMALL:
            view = self._scratch()[: request.length]
            count = local.readinto(request.start, view)
            if count < request.length:
                raise errors.PartialContent(request.length, count)
            sink.write(view)
            self._moved(count)
        else:
            local.send_to(sink, request.start, request.length, self._moved)

    def _receive(self, local: Backend, request: Request, source: Source) -> None:
        """Write the parts of a range from a source; what is between them is dropped."""
        position = request.start
        for start, length in request.parts:
            self._drop(source, start - position)
            if length <= SMALL:
                view = self._scratch()[:length]
                count = fill(source, view)
                if count < length:
                    raise errors.PartialContent(length, count)
                local.write(start, view)
                self._moved(count)
            else:
                local.receive_from(source, start, length, self._moved)
            position = start + length

    def _drop(self, source: Source, length: int) -> None:
        while length:
            count = fill(source, self._scratch()[:length])
            if not count:
                raise errors.PartialContent(length, 0)
            length -= count


class Between(BaseLane):
    """Between two disks, one request after the other.

    The way to tests, and from anything to anything: nothing here recovers from an error.
    """

    def __init__(self, open_source: Open, open_destination: Open, moved: Progress) -> None:
        super().__init__(moved)
        self._open = (open_source, open_destination)
        self._ends: Optional[tuple[Backend, Backend]] = None

    def begin(self, request: Request) -> None:
        """Carry out the request."""
        if self._ends is None:
            self._ends = (self._open[0](), self._open[1]())
        source, destination = self._ends
        if request.action == COPY:
            for start, length in request.parts:
                part = Request(COPY, start, length, ((start, length),))
                self._send(source, part, Writer(destination, start))
        else:
            destination.zero(request.start, request.length)
        self._pending.append(request)

    def finish(self) -> Request:
        """Return the request that was carried out."""
        return self._pending.popleft()

    def flush(self) -> None:
        """Flush the destination."""
        if self._ends is not None:
            self._ends[1].flush()

    def recover(self, error: errors.Error) -> list[Request]:
        """Raise the error."""
        raise error

    def interrupt(self) -> None:
        """Wake whatever blocks. Threads: any."""
        for end in self._ends or ():
            end.interrupt()

    def close(self) -> None:
        """Close both disks."""
        for end in self._ends or ():
            end.close()

    def _limit(self) -> int:
        return 1


class RemoteLane(BaseLane):
    """A lane with an image of a server at one end."""

    def __init__(self, open_local: Open, open_remote: OpenRemote, moved: Progress) -> None:
        super().__init__(moved)
        self._open_local = open_local
        self._open_remote = open_remote
        self._local: Optional[Backend] = None
        self._remote: Optional[HttpBackend] = None
        self._pipeline: Optional[Pipeline] = None
        self._is_interrupted = False

    def _ends(self) -> tuple[Backend, HttpBackend, Pipeline]:
        if self._local is None:
            self._local = self._open_local()
        if self._remote is None:
            self._remote = self._open_remote()
            self._pipeline = Pipeline(self._remote)
        if self._is_interrupted:
            raise errors.OperationCanceled()
        assert self._pipeline is not None
        return self._local, self._remote, self._pipeline

    def _limit(self) -> int:
        if self._remote is None or not self._remote.can_pipeline:
            return 1
        # The largest one is enough to know: a window of small ones is small.
        return MAX_PENDING if not self._pending or self._pending[-1].length < LARGE else 2

    def recover(self, error: errors.Error) -> list[Request]:
        """Return what was under way, if the server may be back soon, and the fault is not here."""
        if self._pipeline is not None:
            self._pipeline.drop()
        if not is_passing(error):
            raise error
        if self._local is not None:
            try:
                self._local.size()
            except errors.Error:
                raise error from None
        lost = list(self._pending)
        self._pending.clear()
        return lost

    def interrupt(self) -> None:
        """Wake whatever blocks. Threads: any."""
        self._is_interrupted = True
        for end in (self._local, self._remote):
            if end is not None:
                end.interrupt()

    def close(self) -> None:
        """Close both ends."""
        if self._pipeline is not None:
            self._pipeline.drop()
        for end in (self._local, self._remote):
            if end is not None:
                end.close()


class Upload(RemoteLane):
    """From a disk here to an image there.

    `detect_zeroes`: what is no longer than BLOCK is looked at, and zeroes are not sent.
    """

    BLOCK = 1024**2

    def __init__(
        self, open_local: Open, open_remote: OpenRemote, moved: Progress, *, detect_zeroes: bool = False
    ) -> None:
        super().__init__(open_local, open_remote, moved)
        self._block = buffers.aligned(self.BLOCK) if detect_zeroes else None

    def begin(self, request: Request) -> None:
        """Send a request; its answer is still to come."""
        local, remote, pipeline = self._ends()
        if request.action == COPY and self._block is not None and request.length <= self.BLOCK:
            self._send_block(local, pipeline, request, self._block[: request.length], "zero" in remote.features)
        elif request.action == COPY:
            pipeline.write(request.start, request.length, functools.partial(self._send, local, request))
        elif "zero" in remote.features:
            pipeline.zero(request.start, request.length)
        else:
            pipeline.write(request.start, request.length, functools.partial(self._send_zeroes, request.length))
        self._pending.append(request)

    def finish(self) -> Request:
        """Wait for the oldest answer."""
        _, _, pipeline = self._ends()
        pipeline.finish()
        return self._pending.popleft()

    def flush(self) -> None:
        """Flush the image; for those that cannot, every write was flushed."""
        _, remote, _ = self._ends()
        assert not self._pending
        remote.flush()

    def _send_block(
        self, local: Backend, pipeline: Pipeline, request: Request, view: memoryview, can_zero: bool
    ) -> None:
        """Send a block, unless it is zero."""
        count = local.readinto(request.start, view)
        if count < len(view):
            raise errors.PartialContent(len(view), count)
        if can_zero and is_zero(view):
            pipeline.zero(request.start, request.length)
        else:
            pipeline.write(request.start, request.length, lambda sink: sink.write(view))
            self._moved(count)

    def _send_zeroes(self, length: int, sink: Sink) -> None:
        zeroes = memoryview(bytes(min(length, SMALL)))
        while length:
            view = zeroes[:length]
            sink.write(view)
            length -= len(view)
            self._moved(len(view))


class Download(RemoteLane):
    """From an image there to a disk here."""

    def begin(self, request: Request) -> None:
        """Ask for data; zeroes are written here."""
        local, _, pipeline = self._ends()
        if request.action == COPY:
            pipeline.read(request.start, request.length)
        else:
            local.zero(request.start, request.length)
        self._pending.append(request)

    def finish(self) -> Request:
        """Wait for the oldest data, and write it."""
        request = self._pending[0]
        if request.action == COPY:
            local, _, pipeline = self._ends()
            pipeline.finish(functools.partial(self._receive, local, request))
        return self._pending.popleft()

    def flush(self) -> None:
        """Flush the disk."""
        local, _, _ = self._ends()
        local.flush()


class Writer:
    """A disk as a sink: what it is given is written one after the other, from an offset on."""

    def __init__(self, backend: Backend, offset: int) -> None:
        self._backend = backend
        self._offset = offset

    @property
    def socket(self) -> Optional[socket.socket]:
        """None: all bytes come through here."""
        return None

    def write(self, view: memoryview) -> None:
        """Write a piece."""
        self._backend.write(self._offset, view)
        self._offset += len(view)

    def advance(self, count: int) -> None:
        """Never called: there is no socket."""


def is_passing(error: BaseException) -> bool:
    """May the same request succeed a little later?"""
    if isinstance(error, errors.OriginError):
        return error.status in PASSING
    # Whom we do not trust now we will not trust then.
    is_lost = isinstance(error, (errors.BackendUnavailable, errors.BackendTimeout))
    return is_lost and not isinstance(error, errors.BackendUntrusted)
