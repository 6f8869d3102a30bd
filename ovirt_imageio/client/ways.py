"""Which way a copy goes: by a request of HTTP for each task, or by NBD over connections that were upgraded to it.

    HTTP    a request costs 100 microseconds at both ends; bytes of large ones may stay in the kernel
    NBD     a request costs a fifth of that; all bytes pass through us

One rule decides: NBD where the server has it, and there are many small pieces. A server that refuses gets HTTP.
The same holds for long lists of extents.
"""

from __future__ import annotations

import abc
import contextlib
import itertools
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.client.ahead import Ahead
from ovirt_imageio.client.copy import ends, lanes
from ovirt_imageio.client.copy.engine import Lane, OpenLane
from ovirt_imageio.client.copy.nbdlane import NBDLane
from ovirt_imageio.client.copy.plan import COPY, Task
from ovirt_imageio.client.copy.reach import NEAR
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.origin.image import Image
from ovirt_imageio.relay import Progress

__all__ = ["MANY", "SAMPLE", "SMALL", "HTTPWay", "NBDWay", "Way", "are_many", "choose"]

log = logging.getLogger(__name__)

# Pieces that are shorter than this on average are small: those of 64 KiB take less than half the time of HTTP, those of
# 1 MiB three quarters of it; those of 64 MiB a quarter more.
SMALL = 2 * 1024**2

# How many tasks are looked at. The copy begins when they are known.
SAMPLE = 1000

# After this many extents a list goes on by NBD: a connection for it costs as much as 2,000 extents by HTTP.
MANY = 4096


class Way(abc.ABC):
    """A way to the image on the server.

    Threads: any.
    """

    name: str

    @abc.abstractmethod
    def uploading(self, open_local: lanes.OpenLocal, *, detect_zeroes: bool) -> OpenLane:
        """Return what opens a lane from a disk here."""

    @abc.abstractmethod
    def downloading(self, open_local: lanes.OpenLocal) -> OpenLane:
        """Return what opens a lane to a disk here."""

    def close(self) -> None:  # noqa: B027  (one of them has nothing to close)
        """Close the connections that no lane needed."""


class HTTPWay(Way):
    """Each task is a request."""

    name = "HTTP"

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def uploading(self, open_local: lanes.OpenLocal, *, detect_zeroes: bool) -> OpenLane:
        """Return what opens a lane from a disk here."""
        return lambda moved: lanes.UploadLane(
            open_local, self._remote.open, moved, reach=self._remote.reach, detect_zeroes=detect_zeroes
        )

    def downloading(self, open_local: lanes.OpenLocal) -> OpenLane:
        """Return what opens a lane to a disk here."""
        return lambda moved: lanes.DownloadLane(open_local, self._remote.open, moved, reach=self._remote.reach)


class NBDWay(Way):
    """Tasks are many small requests. `first` is a connection for the first lane that comes, others are ahead."""

    name = "NBD"

    def __init__(self, remote: Remote, first: ends.NBDEnd[Any], ahead: Ahead[ends.NBDEnd[Any]]) -> None:
        self._remote = remote
        self._ahead = ahead
        self._lock = threading.Lock()
        self._first: Optional[ends.NBDEnd[Any]] = first

    def uploading(self, open_local: lanes.OpenLocal, *, detect_zeroes: bool) -> OpenLane:
        """Return what opens a lane from a disk here."""
        return lambda moved: self._lane(open_local, moved, is_upload=True, detect_zeroes=detect_zeroes)

    def downloading(self, open_local: lanes.OpenLocal) -> OpenLane:
        """Return what opens a lane to a disk here."""
        return lambda moved: self._lane(open_local, moved, is_upload=False)

    def _lane(
        self, open_local: lanes.OpenLocal, moved: Progress, *, is_upload: bool, detect_zeroes: bool = False
    ) -> Lane:
        return NBDLane(
            lambda: ends.local_end(open_local()),
            self._open,
            moved,
            is_upload=is_upload,
            reach=self._remote.reach,
            detect_zeroes=detect_zeroes,
        )

    def _open(self, line: Lifeline) -> ends.NBDEnd[Any]:
        return self._take_first() or self._ahead.take(line) or self._remote.attach(line)

    def _take_first(self) -> Optional[ends.NBDEnd[Any]]:
        with self._lock:
            first, self._first = self._first, None
        return first

    def close(self) -> None:
        """Close the connections that no lane needed."""
        first = self._take_first()
        if first is not None:
            first.close()
        self._ahead.close()


def choose(
    tasks: Iterable[Task], remote: Remote, there: Image, size: int, *, workers: int = 1, listers: int = 0
) -> tuple[Way, Iterator[Task]]:
    """Return which way the tasks go, and the tasks; they may reach up to `size`.

    As many `workers` carry them out. While they are listed, the connection of `there` is in use, and `listers` of the
    workers wait.
    """
    tasks = iter(tasks)
    sample = list(itertools.islice(tasks, SAMPLE))
    is_complete = len(sample) < SAMPLE
    # A server that takes one connection at a time has none left for NBD before the list ends.
    can_connect = not listers or is_complete or there.abilities.max_readers > 1
    way: Optional[Way] = None
    if "nbd" in there.abilities.features and can_connect and are_small(sample, remote.reach.max_copy):
        way = try_nbd(remote, size, min(workers, len(sample)) if is_complete else workers - listers)
    return way or HTTPWay(remote), itertools.chain(sample, tasks)


def are_small(tasks: Iterable[Task], max_copy: int) -> bool:
    """Are their data in small pieces, where none is longer than `max_copy`? Zeroes are small requests either way."""
    lengths = [task.length for task in tasks if task.action == COPY]
    return sum(lengths) < min(SMALL, max_copy // 2) * len(lengths)


def are_many(count: int, length: int, there: Image) -> bool:
    """Are these extents, with their length together, the beginning of a list that is better told by NBD?

    A server that takes one connection at a time has none left for NBD before the list ends.
    """
    is_possible = "nbd" in there.abilities.features and there.abilities.max_readers > 1
    return is_possible and count >= MANY and length < SMALL * count


def try_nbd(remote: Remote, size: int, count: int) -> Optional[NBDWay]:
    """Return the way by NBD to a disk of at least this size, None if the server does not give one.

    If it is far, so many connections are made at once.
    """
    with contextlib.ExitStack() as stack:
        ahead: Ahead[ends.NBDEnd[Any]] = Ahead(0 if remote.reach == NEAR else count, remote.attach)
        stack.callback(ahead.close)
        line = Lifeline()
        try:
            first = ahead.take(line) or remote.attach(line)
        except errors.StorageError as error:
            log.warning("Going on by HTTP, as the server does not speak NBD: %s", error)
            return None
        if first.size < size:
            log.debug("Going on by HTTP, as NBD offers %d of %d bytes", first.size, size)
            first.close()
            return None
        stack.pop_all()
        return NBDWay(remote, first, ahead)
