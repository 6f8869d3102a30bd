"""Block status becomes extents: in order, without gaps, merged, whatever pieces the server answers in."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.nbd import status, wire
from ovirt_imageio.nbd.errors import ProtocolError
from ovirt_imageio.nbd.handshake import Export
from ovirt_imageio.nbd.wire import Mode

BASE = "base:allocation"
DEPTH = "qemu:allocation-depth"
BITMAP = "qemu:dirty-bitmap:backup"
DATA, ZERO = 0, 3
KIB = 1024
GIB = 1024**3


class Disk:
    """Stands for a client: a disk with a map for each context, and a server that answers in pieces.

    A map is a list of (length, flags), and covers the disk. `cut` shortens what is answered: it gets the extents of one
    context, and returns those to send.
    """

    max_status = 2 * GIB

    def __init__(self, maps, mode=Mode.STRUCTURED, block=1, cut=lambda extents: extents):
        self.maps = maps
        size = sum(length for length, _ in next(iter(maps.values()))) if maps else GIB
        self.export = Export("", size, 0, mode, dict(enumerate(maps)), minimum_block=block)
        self.cut = cut
        self.asked = []

    def block_status(self, offset, length):
        assert 0 < length <= self.max_status
        assert offset % self.export.minimum_block == 0
        assert offset + length <= self.export.size
        self.asked.append((offset, length))
        return {number: self.pack(self.cut(self.part(name, offset, length))) for number, name in enumerate(self.maps)}

    def part(self, name, offset, length):
        """The extents from offset on, the last of which may reach beyond."""
        found = []
        start = 0
        for size, flags in self.maps[name]:
            end = start + size
            if end > offset and start < offset + length:
                found.append((end - max(start, offset), flags))
            start = end
        return found

    def pack(self, extents):
        layout = wire.STATUS_EXT_EXTENT if self.export.mode is Mode.EXTENDED else wire.STATUS_EXTENT
        return memoryview(b"".join(layout.pack(min(length, 2**32 - 1), flags) for length, flags in extents))


def zero_extents(disk, offset=0, length=None):
    return list(status.zero_extents(disk, offset, disk.export.size - offset if length is None else length))


def check(extents, offset, length):
    """They cover the range, and neighbours differ."""
    assert extents[0].start == offset
    assert sum(extent.length for extent in extents) == length
    for extent, following in zip(extents, extents[1:]):
        assert extent.start + extent.length == following.start
        assert extent[2:] != following[2:]


def test_raw():
    disk = Disk({BASE: [(100, DATA), (200, ZERO), (300, DATA)]})
    assert zero_extents(disk) == [
        ZeroExtent(0, 100, False, False),
        ZeroExtent(100, 200, True, False),
        ZeroExtent(300, 300, False, False),
    ]


def test_depth():
    """What no layer of the image allocates is a hole."""
    disk = Disk({BASE: [(100, DATA), (500, ZERO)], DEPTH: [(100, 1), (200, 0), (200, 2), (100, 1)]})
    assert zero_extents(disk) == [
        ZeroExtent(0, 100, False, False),
        ZeroExtent(100, 200, True, True),
        ZeroExtent(300, 300, True, False),
    ]


@pytest.mark.parametrize("flags,zero", [(0, False), (1, False), (2, True), (3, True), (4, False), (0xFFFFFFFE, True)])
def test_only_one_flag_says_zero(flags, zero):
    assert zero_extents(Disk({BASE: [(100, flags)]})) == [ZeroExtent(0, 100, zero, False)]


def test_dirty():
    disk = Disk({BASE: [(100, DATA), (500, ZERO)], DEPTH: [(600, 1)], BITMAP: [(50, 1), (150, 0), (400, 1)]})
    assert list(status.dirty_extents(disk, 0, 600, BITMAP)) == [
        DirtyExtent(0, 50, True, False),
        DirtyExtent(50, 50, False, False),
        DirtyExtent(100, 100, False, True),
        DirtyExtent(200, 400, True, True),
    ]


def test_dirty_without_allocation():
    disk = Disk({BITMAP: [(50, 0), (50, 1)]})
    assert list(status.dirty_extents(disk, 0, 100, BITMAP)) == [
        DirtyExtent(0, 50, False, False),
        DirtyExtent(50, 50, True, False),
    ]


@pytest.mark.parametrize("maps", [{}, {DEPTH: [(GIB, 0)]}])
def test_the_server_cannot_tell(maps):
    assert zero_extents(Disk(maps)) == [ZeroExtent(0, GIB, False, False)]
    assert zero_extents(Disk(maps), 100, 0) == []


def test_empty_disk():
    disk = Disk({BASE: []})
    assert zero_extents(disk) == []
    assert list(status.dirty_extents(Disk({BITMAP: []}), 0, 0, BITMAP)) == []
    assert disk.asked == []


def test_part_of_a_disk():
    disk = Disk({BASE: [(100, DATA), (200, ZERO), (300, DATA)]})
    assert zero_extents(disk, 50, 100) == [ZeroExtent(50, 50, False, False), ZeroExtent(100, 50, True, False)]


def test_a_large_disk_is_asked_for_in_steps():
    disk = Disk({BASE: [(3 * GIB, DATA), (7 * GIB, ZERO)]}, cut=lambda extents: [(min(extents[0][0], GIB), DATA)])
    assert zero_extents(disk) == [ZeroExtent(0, 10 * GIB, False, False)]
    assert max(length for _, length in disk.asked) == 2 * GIB


def test_extents_longer_than_4_gib():
    disk = Disk({BASE: [(6 * GIB, ZERO), (64 * KIB, DATA), (6 * GIB, ZERO)]})
    assert zero_extents(disk) == [
        ZeroExtent(0, 6 * GIB, True, False),
        ZeroExtent(6 * GIB, 64 * KIB, False, False),
        ZeroExtent(6 * GIB + 64 * KIB, 6 * GIB, True, False),
    ]


def test_extended_headers_ask_once():
    disk = Disk({BASE: [(2**32 - 1, ZERO)] * 3}, mode=Mode.EXTENDED)
    disk.max_status = 2**62
    assert zero_extents(disk) == [ZeroExtent(0, 3 * (2**32 - 1), True, False)]
    assert disk.asked == [(0, 3 * (2**32 - 1))]


def test_blocks_of_the_server_are_respected():
    """The disk asserts that it is asked about whole blocks."""
    disk = Disk({BASE: [(4096, DATA), (8192, ZERO), (5000, DATA)]}, block=4096)
    assert zero_extents(disk, 100, 5000) == [ZeroExtent(100, 3996, False, False), ZeroExtent(4096, 1004, True, False)]
    assert disk.asked == [(0, 8192)]
    assert zero_extents(disk, 12288, 5000) == [ZeroExtent(12288, 5000, False, False)]


def test_what_lies_in_the_first_block_before_the_range_is_left_out():
    """One extent ends there, another one before."""
    disk = Disk({BASE: [(100, DATA), (50, ZERO), (8042, DATA)]}, block=4096)
    assert list(status.walk(disk, 150, 100)) == [(150, 100, (DATA,))]


def test_empty_extent():
    with pytest.raises(ProtocolError, match="empty extent"):
        zero_extents(Disk({BASE: [(100, DATA)]}, cut=lambda extents: [(0, 0), *extents]))


def test_no_progress():
    with pytest.raises(ProtocolError, match="shorter than its blocks"):
        zero_extents(Disk({BASE: [(8192, DATA)]}, block=4096, cut=lambda extents: [(1, DATA)]), 100, 10)


MAP = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), min_size=1, max_size=20)


@given(MAP, MAP, st.sampled_from([Mode.STRUCTURED, Mode.EXTENDED]), st.data())
def test_any_maps_in_any_pieces(base, depth, mode, data):
    """Byte by byte the extents say what the maps say, however the server cuts its answers."""
    size = min(sum(length for length, _ in items) for items in (base, depth))
    flat = [list(itertools.chain.from_iterable([flags] * length for length, flags in items)) for items in (base, depth)]
    maps = {BASE: [(1, flags) for flags in flat[0][:size]], DEPTH: [(1, flags) for flags in flat[1][:size]]}

    def cut(extents):
        joined = []
        for length, flags in extents:
            if joined and joined[-1][1] == flags:
                joined[-1] = (joined[-1][0] + length, flags)
            else:
                joined.append((length, flags))
        joined = joined[: data.draw(st.integers(1, len(joined)))]
        return [*joined[:-1], (data.draw(st.integers(1, joined[-1][0])), joined[-1][1])]

    disk = Disk(maps, mode, cut=cut)
    offset = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    extents = zero_extents(disk, offset, length)
    check(extents, offset, length)
    told = [(e.zero, e.hole) for e in extents for _ in range(e.length)]
    assert told == [(bool(flat[0][i] & 2), flat[1][i] == 0) for i in range(offset, offset + length)]


def test_many_extents_take_no_memory():
    """One answer is kept at a time, as it came."""
    count = 20_000
    answer = memoryview(struct.pack(">IIII", 4 * KIB, DATA, 4 * KIB, ZERO) * 1000)

    class Fragmented:
        max_status = 2 * GIB
        export = Export("", count * 4 * KIB, 0, Mode.STRUCTURED, {0: BASE})

        def block_status(self, offset, length):
            assert offset % (8 * KIB) == 0
            return {0: answer}

    tracemalloc.start()
    try:
        found = sum(1 for _ in status.zero_extents(Fragmented(), 0, count * 4 * KIB))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == count
    assert peak < 32 * KIB
