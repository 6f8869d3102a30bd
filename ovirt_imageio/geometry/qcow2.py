"""The layout of a qcow2 image that can be sent from its first byte to its last, and holds nothing but the data.

    | header | refcount table | refcount blocks | L1 table | L2 tables | data ...
             ^ each part begins with a cluster of its own; all but the data are known once the extents are

Pure: knows the extents of a disk, not its bytes. A part of the image is either bytes that are computed here, or a range
of the disk. The format is version 3 of what docs/interop/qcow2.rst of QEMU describes.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from sys import byteorder
from typing import NamedTuple, Optional, Union

from ovirt_imageio.geometry.blocks import pieces, round_up
from ovirt_imageio.geometry.extent import Extent

__all__ = ["CLUSTER", "MAX_DISK", "DiskRange", "Qcow2Layout"]

MAGIC = b"QFI\xfb"
VERSION = 3
HEADER = struct.Struct(">4sI QI IQ II QQ II Q QQQ II")
# A count of references has 2**4 bits.
REFCOUNT_ORDER = 4
REFCOUNT_SIZE = 2
ENTRY_SIZE = 8
# In an entry of an L1 or L2 table: only this entry refers to the cluster.
COPIED = 1 << 63

SECTOR = 512
CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
# How many entries a cluster of the refcount table, of the L1 table, or an L2 table holds.
ENTRIES = CLUSTER // ENTRY_SIZE
# How many clusters of the image a refcount block counts.
COUNTS = CLUSTER // REFCOUNT_SIZE

# QEMU opens no image with a larger L1 table than 32 MiB, or a larger refcount table than 8 MiB. With clusters of
# 64 KiB each of them is enough for 2 PiB, of which the tables themselves need some.
MAX_DISK = 1024**5


class DiskRange(NamedTuple):
    """A part of the image that lies, as it is, at `offset` of the disk."""

    offset: int
    length: int


Part = Union[bytes, DiskRange]


class Qcow2Layout:
    """Where the data of a disk of `size` bytes lies in an image of it.

    Extents come in order, all at once or in batches: only clusters are kept of them, however many there are. A cluster
    in which something is data is in the image; the others read as zeroes.

    Threads: any number at once, once all extents are added.

    >>> from ovirt_imageio.geometry.extent import ZeroExtent
    >>> layout = Qcow2Layout(2**30, [ZeroExtent(2**20, 4096, False, False)])
    >>> layout.length // CLUSTER, list(layout.parts(layout.length - CLUSTER, CLUSTER))
    (6, [DiskRange(offset=1048576, length=65536)])
    """

    def __init__(self, size: int, extents: Iterable[Extent] = ()) -> None:
        assert 0 <= size <= MAX_DISK, size
        self._size = size
        # Parallel arrays of runs of clusters with data: the first one, and how many there are in the runs before.
        self._starts = array("q")
        self._before = array("q")
        # The L2 tables that exist, by what part of the disk they map.
        self._tables = array("q")
        self._data_count = 0
        # The cluster of the disk behind the last run.
        self._end = 0
        self._l1_entries = -(-size // (CLUSTER * ENTRIES))
        self.add(extents)

    def add(self, extents: Iterable[Extent]) -> None:
        """Add the extents that follow those which were added before."""
        self._add_runs(extents)
        l1_count = -(-self._l1_entries // ENTRIES)
        blocks = refcount_blocks(1 + l1_count + len(self._tables) + self._data_count)
        # The first cluster of each part.
        self._block_start = 1 + -(-blocks // ENTRIES)
        self._l1_start = self._block_start + blocks
        self._l2_start = self._l1_start + l1_count
        self._data_start = self._l2_start + len(self._tables)
        self._count = self._data_start + self._data_count

    @property
    def length(self) -> int:
        """How many bytes the image has."""
        return self._count * CLUSTER

    @property
    def tables_length(self) -> int:
        """How many of them come before the data."""
        return self._data_start * CLUSTER

    @property
    def data_length(self) -> int:
        """How many of them are data of the disk."""
        return self._data_count * CLUSTER

    @property
    def tag(self) -> str:
        """A text that differs for another layout."""
        digest = hashlib.sha256(self._size.to_bytes(8, "big"))
        digest.update(self._starts.tobytes())
        digest.update(self._before.tobytes())
        digest.update(self._data_count.to_bytes(8, "big"))
        return digest.hexdigest()[:16]

    def parts(self, offset: int, length: int) -> Iterator[Part]:
        """Yield what makes up a range of the image, in order."""
        assert 0 <= offset <= offset + length <= self.length, (offset, length)
        end = offset + length
        tables_end = min(end, self._data_start * CLUSTER)
        for start, count in pieces(offset, max(0, tables_end - offset), CLUSTER):
            first = start % CLUSTER
            yield self._table(start // CLUSTER)[first : first + count]
        offset = max(offset, tables_end)
        for part in self._data(offset, end):
            # A cluster may reach beyond the end of the disk.
            length = max(0, min(part.length, self._size - part.offset))
            if length:
                yield DiskRange(part.offset, length)
            if length < part.length:
                yield bytes(part.length - length)

    def disk_ranges(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the disk, as start and end, of which a range of the image has the data."""
        for part in self._data(max(offset, self._data_start * CLUSTER), offset + length):
            if part.offset < self._size:
                yield part.offset, min(part.offset + part.length, self._size)

    def places(self, offset: int, length: int) -> Iterator[tuple[int, int, Optional[int]]]:
        """Yield start, length and place in the image of each part of a range of the disk; None where it has none."""
        end = offset + length
        run = max(0, bisect_right(self._starts, offset // CLUSTER) - 1)
        while offset < end:
            first, stop = self._run(run)
            if offset < first:
                place, stop = None, first
            elif offset < stop:
                place = (self._data_start + self._before[run]) * CLUSTER + offset - first
            else:
                run += 1
                continue
            count = min(stop, end) - offset
            yield offset, count, place
            offset += count

    def _run(self, run: int) -> tuple[int, int]:
        """Return where a run begins and ends on the disk; behind the last one nothing is."""
        if run >= len(self._starts):
            return MAX_DISK, MAX_DISK
        return self._starts[run] * CLUSTER, (self._starts[run] + self._clusters_of(run)) * CLUSTER

    def _add_runs(self, extents: Iterable[Extent]) -> None:
        """Round extents with data to clusters, join those that touch."""
        for extent in extents:
            if not extent.data or not extent.length:
                continue
            first = extent.start // CLUSTER
            stop = -(-(extent.start + extent.length) // CLUSTER)
            if not self._starts or first > self._end:
                self._starts.append(first)
                self._before.append(self._data_count)
            else:
                # The cluster in which one extent ends and the next one begins is counted once.
                first = self._end
            assert first <= stop, "extents are in order"
            self._data_count += stop - first
            self._end = stop
            known = self._tables[-1] + 1 if self._tables else 0
            self._tables.extend(range(max(known, first // ENTRIES), -(-stop // ENTRIES)))
        assert self._end * CLUSTER <= round_up(self._size, CLUSTER), "extents end with the disk"

    def _data(self, offset: int, end: int) -> Iterator[DiskRange]:
        """Yield what data lies in a range of the image; the last cluster is taken as a whole one."""
        base = self._data_start * CLUSTER
        while offset < end:
            run = bisect_right(self._before, (offset - base) // CLUSTER) - 1
            position = offset - base - self._before[run] * CLUSTER
            count = min(end - offset, self._clusters_of(run) * CLUSTER - position)
            yield DiskRange(self._starts[run] * CLUSTER + position, count)
            offset += count

    def _clusters_of(self, run: int) -> int:
        following = self._before[run + 1] if run + 1 < len(self._before) else self._data_count
        return following - self._before[run]

    def _table(self, cluster: int) -> bytes:
        """Return one cluster of the image that is not data."""
        if cluster >= self._l2_start:
            return self._l2_table(self._tables[cluster - self._l2_start])
        if cluster >= self._l1_start:
            return self._l1_part((cluster - self._l1_start) * ENTRIES)
        if cluster >= self._block_start:
            used = min(COUNTS, self._count - (cluster - self._block_start) * COUNTS)
            return padded(used * b"\0\1")
        if cluster >= 1:
            first = self._block_start + (cluster - 1) * ENTRIES
            return table(range(first * CLUSTER, min(first + ENTRIES, self._l1_start) * CLUSTER, CLUSTER))
        return self._header()

    def _header(self) -> bytes:
        header = HEADER.pack(
            MAGIC,
            VERSION,
            0,  # no backing file
            0,
            CLUSTER_BITS,
            round_up(self._size, SECTOR),
            0,  # not encrypted
            self._l1_entries,
            self._l1_start * CLUSTER,
            CLUSTER,  # where the refcount table begins
            self._block_start - 1,
            0,  # no snapshots
            0,
            0,  # no features that a reader must know,
            0,  # may know,
            0,  # or must clear
            REFCOUNT_ORDER,
            HEADER.size,
        )
        # No header extension follows: their list ends with zeroes.
        return padded(header)

    def _l1_part(self, first: int) -> bytes:
        """Return the cluster of the L1 table that begins with its entry number `first`."""
        entries = array("Q", bytes(CLUSTER))
        begin = bisect_left(self._tables, first)
        for index in range(begin, bisect_left(self._tables, first + ENTRIES)):
            entries[self._tables[index] - first] = (self._l2_start + index) * CLUSTER | COPIED
        return big_endian(entries)

    def _l2_table(self, number: int) -> bytes:
        """Return the table of the clusters of the disk from number * ENTRIES on."""
        entries = array("Q", bytes(CLUSTER))
        first = number * ENTRIES
        run = max(0, bisect_right(self._starts, first) - 1)
        while run < len(self._starts) and self._starts[run] < first + ENTRIES:
            begin = max(self._starts[run], first)
            stop = min(self._starts[run] + self._clusters_of(run), first + ENTRIES)
            if begin < stop:
                target = self._data_start + self._before[run] + begin - self._starts[run]
                offsets = range(target * CLUSTER | COPIED, (target + stop - begin) * CLUSTER | COPIED, CLUSTER)
                entries[begin - first : stop - first] = array("Q", offsets)
            run += 1
        return big_endian(entries)


def refcount_blocks(others: int) -> int:
    """Return how many refcount blocks count themselves, the table that lists them, and `others` clusters."""
    blocks = 0
    while True:
        needed = -(-(others + blocks + -(-blocks // ENTRIES)) // COUNTS)
        if needed == blocks:
            return blocks
        blocks = needed


def table(offsets: Iterable[int]) -> bytes:
    """Return a cluster of entries that are offsets."""
    return padded(big_endian(array("Q", offsets)))


def padded(data: bytes) -> bytes:
    """Return data and zeroes that fill a cluster."""
    return data.ljust(CLUSTER, b"\0")


def big_endian(entries: array[int]) -> bytes:
    """Return the entries as the format has them."""
    if byteorder == "little":
        entries.byteswap()
    return entries.tobytes()
