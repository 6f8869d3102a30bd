"""Move a range of a disk to a sink, or from a source, while the storage works ahead of the network, or behind it.

    disk ──> slot ──> sink       the first and the last bytes, short ranges, and sinks that encrypt
    disk ──> pipe ──> sink       whole blocks for a plain socket: they stay in the kernel
    source ──> slot ──> disk

Knows disks, sources and sinks; knows nothing of URLs and backends.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Union

from ovirt_imageio import errors, relay
from ovirt_imageio.geometry import blocks
from ovirt_imageio.relay import Progress, Sink, Source, buffers
from ovirt_imageio.storage.direct import DirectFile
from ovirt_imageio.storage.disk import Disk

__all__ = ["DiskStreamer", "failures"]

# How many pieces may be between the storage and the network: two at the storage, one on the network, one to spare.
SLOTS = 4

# Where bytes begin to stay in the kernel: a shorter range costs less through a slot.
SPLICE_ALIGNMENT = 64 * 1024
SPLICE_MINIMUM = 256 * 1024

# A file system that has no splice says so in one of these ways.
CANNOT_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class CannotSplice(Exception):
    """The file system has no splice."""


class DiskStreamer:
    """Streams ranges of one open disk. A failure of the disk is an errors.StorageError, unlike those of the other end.

    Threads: one at a time.
    """

    def __init__(self, file: DirectFile, disk: Disk) -> None:
        self._file = file
        self._disk = disk
        self._can_splice = relay.Pipe.is_supported
        self._has_spliced = False

    def can_work_ahead(self, end: Union[Source, Sink]) -> bool:
        """Return True if threads that work ahead of this end, or behind it, make the move faster.

        They do not where TLS and the page cache both keep a processor busy: with four connections, threads that take
        the interpreter's lock from one another cost 8 %.
        """
        return self._file.is_direct or end.socket is not None

    def send(self, sink: Sink, offset: int, length: int, progress: Progress) -> int:
        """Send a range to the sink; while one piece is on the network, the next are read. Return how much there was.

        Between whole blocks and a plain socket the bytes stay in the kernel, but for the first: if they cannot be
        read, the sink must not have begun.
        """
        start = blocks.round_down(offset, SPLICE_ALIGNMENT) + SPLICE_ALIGNMENT
        body = blocks.round_down(offset + length, self._file.block_size) - start
        if body < SPLICE_MINIMUM or not self._can_splice:
            return self._send_slots(sink, offset, length, progress)
        head = start - offset
        done = self._send_slots(sink, offset, head, progress)
        if done == head:
            done += self._send_body(sink, start, body, progress)
        if done == head + body:
            done += self._send_slots(sink, offset + done, length - done, progress)
        return done

    def receive(self, source: Source, offset: int, length: int, progress: Progress) -> int:
        """Write a range from the source; while one piece is written, the next arrive. Return how much came."""
        with buffers.pool.lend(slots_for(length)) as slots:
            pieces = blocks.pieces(offset, length, buffers.SLOT)
            return relay.write_behind(self._write, pieces, slots, source, progress, self._disk.place)

    def _send_slots(self, sink: Sink, offset: int, length: int, progress: Progress) -> int:
        """Send a range through slots; return how much there was."""
        with buffers.pool.lend(slots_for(length)) as slots:
            pieces = blocks.pieces(offset, length, buffers.SLOT)
            return relay.read_ahead(self._read_slot, pieces, slots, sink, progress)

    def _send_body(self, sink: Sink, offset: int, length: int, progress: Progress) -> int:
        """Send whole blocks, in the kernel where that is possible; return how much there was."""
        if sink.socket is not None:
            with contextlib.suppress(CannotSplice):
                return relay.splice_ahead(self._load, offset, length, sink, progress)
            self._can_splice = False
        return self._send_slots(sink, offset, length, progress)

    def _load(self, pipe: relay.Pipe, offset: int, length: int) -> int:
        with failures("read"):
            try:
                count = pipe.load(self._file.fd, offset, length)
            except OSError as e:
                if e.errno in CANNOT_SPLICE and not self._has_spliced:
                    raise CannotSplice() from e
                raise
            self._has_spliced = True
            return count

    def _read_slot(self, slot: memoryview, offset: int, length: int) -> memoryview:
        with failures("read"):
            return self._disk.read_slot(slot, offset, length)

    def _write(self, offset: int, view: memoryview) -> None:
        with failures("write"):
            self._disk.write(offset, view)


@contextlib.contextmanager
def failures(operation: str) -> Iterator[None]:
    """Raise our errors for those of the system."""
    try:
        yield
    except OSError as e:
        raise errors.storage_error(operation, e) from e


def slots_for(length: int) -> int:
    """Return how many slots a move of this length can use."""
    return min(SLOTS, blocks.round_up(length, buffers.SLOT) // buffers.SLOT + 1)
