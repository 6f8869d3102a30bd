"""Bytes that never leave the kernel: a pipe between two descriptors.

Knows descriptors; knows nothing of what is behind them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket as sockets
from typing import Callable

from ovirt_imageio.geometry import blocks
from ovirt_imageio.net.timeouts import get_timeout, is_ready, unsent
from ovirt_imageio.relay.ends import Progress, Sink
from ovirt_imageio.relay.worker import run_ahead

__all__ = ["Pipe", "splice_ahead"]

# Python gained splice() in 3.10, and with it these constants, which not every system names.
SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)
GET_PIPE_SIZE = getattr(fcntl, "F_GETPIPE_SZ", 1032)

# One pipe fills while the other one drains.
PIPES = 2


class Pipe:
    """A pipe in the kernel, through which bytes go from one plain socket to another one without being copied.

        if Pipe.is_supported:
            pipe = Pipe()
            while pipe.fill(source, count):
                pipe.drain(sink, progress)

    The sockets block, as long as the kernel was told: see timeouts.py. Both ends raise OSError, TimeoutError when
    nothing moves in time; then what is in the pipe is lost: close it.

    Threads: one.
    """

    is_supported = hasattr(os, "splice")

    def __init__(self, size: int = 1024 * 1024) -> None:
        self._read_end, self._write_end = os.pipe()
        self._level = 0
        # Where this user may not have that, the default of 64 KiB works as well, in smaller steps.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._write_end, SET_PIPE_SIZE, size)

    @property
    def capacity(self) -> int:
        """How many bytes fit, if they come in whole pages."""
        return fcntl.fcntl(self._write_end, GET_PIPE_SIZE)

    def __len__(self) -> int:
        """How many bytes are in the pipe."""
        return self._level

    def fill(self, source: sockets.socket, count: int) -> int:
        """Move bytes into the empty pipe, up to `count`, once there are some; return how many, 0 at the end."""
        assert self._level == 0, "a full pipe would block for ever"
        try:
            self._level = os.splice(source.fileno(), self._write_end, count)
        except BlockingIOError:
            raise late() from None
        return self._level

    def gather(self, source: sockets.socket, count: int, progress: Progress) -> int:
        """Move `count` bytes into the empty pipe, less if the source ends or the pipe is full; return how many.

        `progress` is told of each part: a source may be so slow that all of them take minutes.
        """
        if self.fill(source, count):
            progress(self._level)
        is_stuck = False
        while 0 < self._level < count:
            try:
                moved = os.splice(source.fileno(), self._write_end, count - self._level, flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                if is_stuck:
                    break  # There are bytes, and they do not fit.
                is_stuck = is_ready(source, 0)
                if not is_stuck and not is_ready(source, get_timeout(source)):
                    raise late() from None
                continue
            if moved == 0:
                break
            is_stuck = False
            self._level += moved
            progress(moved)
        return self._level

    def load(self, file: int, offset: int, count: int) -> int:
        """Move `count` bytes of a file into the empty pipe, less if that ends or the pipe is full; return how many."""
        assert self._level == 0, "a full pipe would block for ever"
        while self._level < count:
            try:
                moved = os.splice(
                    file,
                    self._write_end,
                    count - self._level,
                    offset_src=offset + self._level,
                    flags=os.SPLICE_F_NONBLOCK,
                )
            except BlockingIOError:
                break
            if moved == 0:
                break
            self._level += moved
        return self._level

    def drain(self, sink: sockets.socket, progress: Progress) -> None:
        """Move all that is in the pipe to the sink; `progress` is told of each part."""
        while self._level:
            moved = put(self._read_end, sink, self._level)
            self._level -= moved
            progress(moved)

    def close(self) -> None:
        """Close both ends; harmless when repeated."""
        ends = {self._read_end, self._write_end} - {-1}
        self._read_end = self._write_end = -1
        self._level = 0
        with contextlib.ExitStack() as stack:
            # Each is closed, whatever becomes of the other one.
            for end in ends:
                stack.callback(os.close, end)


def splice_ahead(
    load: Callable[[Pipe, int, int], int], offset: int, length: int, sink: Sink, progress: Progress
) -> int:
    """Send a range to the plain socket of the sink; return how much was sent, less than length at the end of the data.

    While one pipe drains, the other is loaded: `load(pipe, offset, length)` calls Pipe.load, and returns how much that
    was.
    """

    def drain(pipe: Pipe, count: int) -> int:
        if count:
            sock = sink.socket
            assert sock is not None, "only a plain socket takes what is in a pipe"
            pipe.drain(sock, advance)
        return count

    def advance(count: int) -> None:
        sink.advance(count)
        progress(count)

    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(contextlib.closing(Pipe())) for _ in range(PIPES)]
        # Pieces end at multiples of the capacity, so that whole pages fit.
        pieces = blocks.pieces(offset, length, min(pipe.capacity for pipe in pipes))
        return run_ahead(load, pieces, pipes, drain)


def put(source: int, sink: sockets.socket, count: int) -> int:
    """Move up to `count` bytes into the socket; raises TimeoutError.

    The kernel calls a socket writable when a third of its buffer is free, more than a slow reader takes in one
    time-out: that one counts only if the reader took nothing meanwhile.
    """
    before = unsent(sink)
    while True:
        try:
            return os.splice(source, sink.fileno(), count)
        except BlockingIOError:
            left = unsent(sink)
            if left >= before:
                raise late() from None
            before = left


def late() -> TimeoutError:
    """Return the error of a peer that stands still."""
    return TimeoutError(errno.ETIMEDOUT, "Nothing moved in time")
