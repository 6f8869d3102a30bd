"""Lanes: how a worker moves tasks between a disk here and an image there.

    UploadLane      local ──> body of a PUT ; zeroes and flush as PATCH
    DownloadLane    answer to a GET ──> local ; zeroes and flush here

Several tasks are under way on each, when the server can. Knows the two ends; knows nothing of formats and URLs.
"""

from __future__ import annotations

import abc
import functools
import time
from collections import deque
from typing import Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.client.copy.pair import Pair
from ovirt_imageio.client.copy.plan import COPY, Task
from ovirt_imageio.client.copy.reach import NEAR, Reach, Window
from ovirt_imageio.geometry import blocks
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.answers import is_passing
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.pipeline import Frame, Pipeline
from ovirt_imageio.origin.reply import Reply
from ovirt_imageio.relay import Progress, Sink, buffers
from ovirt_imageio.storage.zero import is_zero

__all__ = ["DownloadLane", "OpenLocal", "OpenRemote", "UploadLane"]

# Below this, reading into a buffer is cheaper than what a backend does to stream.
STREAM_MINIMUM = 256 * 1024

OpenLocal = Callable[[], Backend]
# A thread that cuts the line ends the wait for a server.
OpenRemote = Callable[[Lifeline], Image]


class RemoteLane(abc.ABC):
    """What both lanes share: their ends are opened when the first task begins, and tasks end in order.

    Threads: one, but for `interrupt`.
    """

    def __init__(
        self,
        open_local: OpenLocal,
        open_remote: OpenRemote,
        moved: Progress,
        *,
        reach: Reach = NEAR,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pair = Pair(open_local, open_remote)
        self._moved = moved
        self._reach = reach
        self._now = now
        self._window = Window(reach.window, reach.least, reach.seconds)
        self._pipeline: Optional[Pipeline] = None
        self._pending: deque[Task] = deque()
        # How many bytes those have.
        self._pending_bytes = 0

    @property
    def is_busy(self) -> bool:
        """Is a task under way?"""
        return bool(self._pending)

    @property
    def is_full(self) -> bool:
        """Must one end before another one begins?"""
        if not self._pending:
            return False
        remote = self._pair.remote
        if remote is None or not remote.abilities.can_pipeline:
            return True
        count = len(self._pending)
        return count >= self._reach.requests or (count > 1 and self._pending_bytes >= self._window.size)

    @property
    def longest(self) -> int:
        """How long a copy may be that begins now."""
        return self._reach.longest(self._window.size)

    @abc.abstractmethod
    def begin(self, task: Task) -> None:
        """Begin a task; it may stay under way."""

    @abc.abstractmethod
    def finish(self) -> Task:
        """Wait for the oldest task under way, and return it."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Make everything that ended survive a power failure."""

    def recover(self, error: errors.Error) -> list[Task]:
        """Return what was under way, if the server may be back soon, and the fault is not here."""
        if self._pipeline is not None:
            self._pipeline.drop()
        if not is_passing(error):
            raise error
        if self._pair.local is not None:
            try:
                self._pair.local.size()
            except errors.Error:
                raise error from None
        lost = list(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return lost

    def interrupt(self) -> None:
        """Wake whatever blocks. Threads: any."""
        self._pair.interrupt()

    def close(self) -> None:
        """Close both ends."""
        if self._pipeline is not None:
            self._pipeline.drop()
        self._pair.close()

    def _ready(self) -> tuple[Backend, Image, Pipeline]:
        """Return the ends for a task that begins."""
        ends = self._ends()
        if not self._pending:
            self._window.begin(self._now())
        return ends

    def _add(self, task: Task) -> None:
        """Note a task that is under way."""
        self._pending_bytes += self._weight(task)
        self._pending.append(task)

    def _take(self) -> Task:
        """Return the oldest task, which has ended."""
        task = self._pending.popleft()
        self._pending_bytes -= self._weight(task)
        self._window.ended(self._weight(task), self._now())
        return task

    def _weight(self, task: Task) -> int:
        """Return how many bytes a task counts for; zeroes may be longer than any copy."""
        return min(task.length, self._reach.max_copy)

    def _ends(self) -> tuple[Backend, Image, Pipeline]:
        local, remote = self._pair.open()
        if self._pipeline is None:
            self._pipeline = Pipeline(remote)
        return local, remote, self._pipeline


class UploadLane(RemoteLane):
    """From a disk here to an image there.

    `detect_zeroes`: what is not longer than BLOCK is looked at, and zeroes are not sent.
    """

    BLOCK = 1024**2

    def __init__(
        self,
        open_local: OpenLocal,
        open_remote: OpenRemote,
        moved: Progress,
        *,
        reach: Reach = NEAR,
        detect_zeroes: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(open_local, open_remote, moved, reach=reach, now=now)
        self._detect_zeroes = detect_zeroes
        self._frame = Frame(self.BLOCK if detect_zeroes else STREAM_MINIMUM)

    def begin(self, task: Task) -> None:
        """Send the request of a task; its answer is still to come."""
        local, remote, pipeline = self._ready()
        start, length = task.start, task.length
        can_zero = "zero" in remote.abilities.features
        if task.action != COPY:
            if can_zero:
                pipeline.zero(start, length)
            else:
                pipeline.stream(start, length, functools.partial(self._send_zeroes, length))
        elif length > len(self._frame.view):
            pipeline.stream(start, length, lambda sink: local.send_to(sink, start, length, self._moved))
        else:
            self._send_small(local, pipeline, task, can_zero)
        self._add(task)

    def finish(self) -> Task:
        """Wait for the oldest answer."""
        _, _, pipeline = self._ends()
        pipeline.finish()
        return self._take()

    def flush(self) -> None:
        """Flush the image; for those that cannot, every write was flushed."""
        _, remote, _ = self._ends()
        assert not self._pending
        remote.flush()

    def _send_small(self, local: Backend, pipeline: Pipeline, task: Task, can_zero: bool) -> None:
        """Send what fits into the frame."""
        view = self._frame.view[: task.length]
        count = local.readinto(task.start, view)
        if count < task.length:
            raise errors.PartialContent(task.length, count)
        if self._detect_zeroes and can_zero and is_zero(view):
            pipeline.zero(task.start, task.length)
        else:
            pipeline.write(task.start, self._frame, task.length)
            self._moved(count)

    def _send_zeroes(self, length: int, sink: Sink) -> None:
        for _, count in blocks.pieces(0, length, buffers.SLOT):
            sink.write(buffers.ZEROES[:count])
            self._moved(count)


class DownloadLane(RemoteLane):
    """From an image there to a disk here."""

    def __init__(
        self,
        open_local: OpenLocal,
        open_remote: OpenRemote,
        moved: Progress,
        *,
        reach: Reach = NEAR,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(open_local, open_remote, moved, reach=reach, now=now)
        self._buffer = buffers.aligned(STREAM_MINIMUM)

    def begin(self, task: Task) -> None:
        """Ask for data; zeroes are written here."""
        local, _, pipeline = self._ready()
        if task.action == COPY:
            pipeline.read(task.start, task.length)
        else:
            local.zero(task.start, task.length)
        self._add(task)

    def finish(self) -> Task:
        """Wait for the oldest data, and write it."""
        task = self._pending[0]
        if task.action == COPY:
            local, _, pipeline = self._ends()
            pipeline.finish(functools.partial(self._receive, local, task))
        return self._take()

    def flush(self) -> None:
        """Flush the disk."""
        local, _, _ = self._ends()
        local.flush()

    def _receive(self, local: Backend, task: Task, reply: Reply) -> None:
        """Write the parts of a range; what is between them is dropped."""
        position = task.start
        for start, length in task.parts:
            self._drop(reply, start - position)
            if length <= STREAM_MINIMUM:
                view = self._buffer[:length]
                reply.fill(view)
                local.write(start, view)
                self._moved(length)
            else:
                local.receive_from(reply, start, length, self._moved)
            position = start + length

    def _drop(self, reply: Reply, length: int) -> None:
        while length:
            length -= reply.fill(self._buffer[:length])
