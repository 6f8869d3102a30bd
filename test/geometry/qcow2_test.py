"""The layout of qcow2 images, read back by the words of the specification, and what QEMU says of it."""

from __future__ import annotations

import os
import random
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.geometry.qcow2 import MAX_DISK, DiskRange, Qcow2Layout, refcount_blocks
from ovirt_imageio.qemu import img

KIB = 1024
MIB = 1024**2
TIB = 1024**4
CLUSTER = 64 * KIB
COPIED = 1 << 63
# What one L2 table maps.
REACH = 512 * MIB


def data(*ranges):
    """Return the extents of a disk with data in these ranges, as start and length."""
    return [ZeroExtent(start, length, False, False) for start, length in ranges]


def image(layout, disk=None):
    """Return the bytes of an image; those of a disk that is not given are all 0xdd."""
    parts = list(layout.parts(0, layout.length))
    return b"".join(
        part if isinstance(part, bytes) else disk[part.offset :][: part.length] if disk else b"\xdd" * part.length
        for part in parts
    )


def number(data, offset, size=8):
    return int.from_bytes(data[offset : offset + size], "big")


class Reader:
    """An image, read after the specification."""

    def __init__(self, content):
        self.content = content
        self.size = number(content, 24)
        self.l1_size = number(content, 36, 4)
        self.l1_offset = number(content, 40)

    def cluster(self, guest):
        """Return where a cluster of the disk is in the image, None if it reads as zeroes."""
        entry = number(self.content, self.l1_offset + guest // 8192 * 8)
        if entry == 0:
            return None
        assert entry & COPIED
        entry = number(self.content, entry - COPIED + guest % 8192 * 8)
        if entry == 0:
            return None
        assert entry & COPIED
        assert entry % CLUSTER == 0
        return entry - COPIED

    def read(self):
        """Return the disk."""
        disk = b""
        for guest in range(-(-self.size // CLUSTER)):
            place = self.cluster(guest)
            disk += bytes(CLUSTER) if place is None else self.content[place : place + CLUSTER]
        return disk[: self.size]

    def counts(self):
        """Return how often each cluster is referred to, as the refcount table tells."""
        table = number(self.content, 48)
        blocks = [number(self.content, table + i * 8) for i in range(number(self.content, 56, 4) * 8192)]
        counts = []
        for block in blocks:
            counts += struct.unpack(">32768H", self.content[block : block + CLUSTER]) if block else []
        return counts


def test_header():
    content = image(Qcow2Layout(3 * REACH, data((0, 1), (REACH, CLUSTER))))
    assert content[:104] == bytes.fromhex(
        "51 46 49 fb"  # magic: QFI\xfb
        "00 00 00 03"  # version
        "00 00 00 00 00 00 00 00  00 00 00 00"  # no backing file
        "00 00 00 10"  # clusters of 2**16 bytes
        "00 00 00 00 60 00 00 00"  # the size of the disk
        "00 00 00 00"  # not encrypted
        "00 00 00 03"  # entries of the L1 table
        "00 00 00 00 00 03 00 00"  # where it is
        "00 00 00 00 00 01 00 00"  # where the refcount table is
        "00 00 00 01"  # its clusters
        "00 00 00 00  00 00 00 00 00 00 00 00"  # no snapshots
        "00 00 00 00 00 00 00 00"  # incompatible features
        "00 00 00 00 00 00 00 00"  # compatible features
        "00 00 00 00 00 00 00 00"  # features to be cleared
        "00 00 00 04"  # counts of 2**4 bits
        "00 00 00 68"  # the length of this header
    )
    assert content[104:CLUSTER] == bytes(CLUSTER - 104)


def test_tables():
    """Byte by byte: two L2 tables, the second of which is that of the third part of the disk."""
    content = image(Qcow2Layout(3 * REACH, data((CLUSTER, 2 * CLUSTER), (2 * REACH, 1))))
    clusters = [content[i : i + CLUSTER] for i in range(0, len(content), CLUSTER)]
    assert clusters[1] == bytes.fromhex("0000000000020000").ljust(CLUSTER, b"\0")
    assert clusters[2] == (b"\0\1" * 9).ljust(CLUSTER, b"\0")
    assert clusters[3] == bytes.fromhex("8000000000040000 0000000000000000 8000000000050000").ljust(CLUSTER, b"\0")
    assert clusters[4] == bytes.fromhex("0000000000000000 8000000000060000 8000000000070000").ljust(CLUSTER, b"\0")
    assert clusters[5] == bytes.fromhex("8000000000080000").ljust(CLUSTER, b"\0")
    assert clusters[6:] == [b"\xdd" * CLUSTER] * 3


@pytest.mark.parametrize("size, sectors", [(0, 0), (1, 1), (512, 1), (513, 2), (CLUSTER, 128), (CLUSTER + 1, 129)])
def test_the_size_is_whole_sectors(size, sectors):
    reader = Reader(image(Qcow2Layout(size, [])))
    assert reader.size == sectors * 512
    assert reader.l1_size == (1 if size else 0)


def test_a_disk_without_data_is_small_whatever_its_size_is():
    layout = Qcow2Layout(MAX_DISK, [ZeroExtent(0, MAX_DISK, True, True)])
    # The header, the refcount table, one refcount block, and an L1 table of 16 MiB.
    assert layout.length == 3 * CLUSTER + 16 * MIB
    assert layout.data_length == 0


def test_a_large_disk_that_is_all_data():
    layout = Qcow2Layout(16 * TIB, data((0, 16 * TIB)))
    assert layout.data_length == 16 * TIB
    # 8 bytes for each cluster of the disk, and 2 for each of the image.
    assert 16 * TIB + 2**31 + 2**29 < layout.length < 16 * TIB + 2**31 + 2**29 + 2 * MIB
    assert list(layout.parts(layout.length - 100, 100)) == [DiskRange(16 * TIB - 100, 100)]
    # The last refcount block counts to the end of the image, and no further.
    last = -(-layout.length // CLUSTER // 32768) - 1
    place = number(b"".join(layout.parts(CLUSTER + last * 8, 8)), 0)
    used = layout.length // CLUSTER - last * 32768
    assert b"".join(layout.parts(place, CLUSTER)) == (b"\0\1" * used).ljust(CLUSTER, b"\0")


def test_a_large_disk_with_little_data():
    """The L1 table has four clusters, the second of which refers to the one L2 table."""
    layout = Qcow2Layout(16 * TIB, data((5 * TIB, 1)))
    entry = 5 * TIB // REACH * 8
    l1_table = b"".join(layout.parts(3 * CLUSTER, 4 * CLUSTER))
    assert l1_table[entry : entry + 8] == bytes.fromhex("8000000000070000")
    assert l1_table.count(0) == 4 * CLUSTER - 2
    assert layout.length == 9 * CLUSTER


def test_extents_end_with_the_disk():
    with pytest.raises(AssertionError, match="extents end with the disk"):
        Qcow2Layout(CLUSTER, data((CLUSTER, 1)))


def test_dirty_extents_that_are_not_zero_are_data():
    extents = [DirtyExtent(0, CLUSTER, False, False), DirtyExtent(CLUSTER, CLUSTER, True, True)]
    assert Qcow2Layout(2 * CLUSTER, extents).data_length == CLUSTER


@pytest.mark.parametrize(
    "ranges, count",
    [
        ([(0, 1)], 1),
        ([(CLUSTER - 1, 2)], 2),
        ([(10, 1), (20, 1)], 1),
        ([(10, 1), (CLUSTER - 1, 1), (CLUSTER, 1)], 2),
        ([(0, 2 * CLUSTER), (2 * CLUSTER + 5, 1)], 3),
        ([(0, 10), (10, 3 * CLUSTER - 10)], 3),
        ([(0, 0)], 0),
    ],
)
def test_extents_are_rounded_to_clusters(ranges, count):
    layout = Qcow2Layout(16 * CLUSTER, data(*ranges))
    assert layout.data_length == count * CLUSTER
    assert [part for part in layout.parts(0, layout.length) if isinstance(part, DiskRange)] == [
        DiskRange(ranges[0][0] // CLUSTER * CLUSTER, count * CLUSTER)
    ] * bool(count)


def test_what_lies_behind_the_end_of_the_disk_is_zero():
    layout = Qcow2Layout(CLUSTER + 5, data((0, CLUSTER + 5)))
    tail = list(layout.parts(layout.length - 2 * CLUSTER, 2 * CLUSTER))
    assert tail == [DiskRange(0, CLUSTER + 5), bytes(CLUSTER - 5)]
    assert list(layout.parts(layout.length - 10, 10)) == [bytes(10)]
    assert list(layout.disk_ranges(layout.length - 10, 10)) == []
    assert list(layout.disk_ranges(0, layout.length)) == [(0, CLUSTER + 5)]


def test_tags_tell_layouts_apart():
    layouts = [
        Qcow2Layout(size, data(*ranges))
        for size, ranges in [
            (MIB, []),
            (2 * MIB, []),
            (MIB, [(0, 1)]),
            (MIB, [(CLUSTER, 1)]),
            (MIB, [(0, 2 * CLUSTER)]),
            (MIB, [(0, 1), (2 * CLUSTER, 1)]),
        ]
    ]
    assert len({layout.tag for layout in layouts}) == len(layouts)
    # Within a cluster nothing differs.
    assert Qcow2Layout(MIB, data((5, 1))).tag == layouts[2].tag


@st.composite
def disks(draw):
    """A disk and its extents: pieces of data and zeroes, short and long."""
    pieces = draw(
        st.lists(
            st.tuples(st.sampled_from([1, 511, 4096, CLUSTER - 1, CLUSTER, 3 * CLUSTER + 7]), st.booleans()),
            max_size=12,
        )
    )
    disk, extents = b"", []
    for length, is_data in pieces:
        extents.append(ZeroExtent(len(disk), length, not is_data, not is_data))
        disk += b"x" * length if is_data else bytes(length)
    return disk, extents


@given(disks(), st.data())
def test_it_reads_back(made, draw):
    disk, extents = made
    layout = Qcow2Layout(len(disk), extents)
    content = image(layout, disk)
    assert len(content) == layout.length
    reader = Reader(content)
    assert reader.read()[: len(disk)] == disk
    assert not any(reader.read()[len(disk) :])
    counts = reader.counts()
    used = layout.length // CLUSTER
    assert counts == [1] * used + [0] * (len(counts) - used)
    # It does not matter in which batches the extents came.
    cut = draw.draw(st.integers(0, len(extents)))
    other = Qcow2Layout(len(disk))
    other.add(extents[:cut])
    other.add(extents[cut:])
    assert (other.tag, other.length) == (layout.tag, layout.length)
    # Any part of it is that part of it.
    start = draw.draw(st.integers(0, len(content)))
    end = draw.draw(st.integers(start, len(content)))
    got = b""
    ranges = []
    for part in layout.parts(start, end - start):
        if isinstance(part, DiskRange):
            ranges.append((part.offset, part.offset + part.length))
            part = disk[part.offset : part.offset + part.length]
        got += part
    assert got == content[start:end]
    assert list(layout.disk_ranges(start, end - start)) == ranges


def test_qemu_finds_no_error(tmp_path):
    """More clusters than one refcount block counts, several L2 tables, and an odd end."""
    chance = random.Random(1)
    size = 5 * 512 * MIB + 12345 * 512
    disk, qcow2 = tmp_path / "disk", tmp_path / "disk.qcow2"
    extents = []
    position = 0
    with open(disk, "wb") as file:
        file.truncate(size)
        while position < size:
            length = min(size - position, chance.choice([512, 4 * KIB, 200 * KIB, 3 * MIB, 300 * MIB]))
            is_data = length < 4 * MIB and chance.random() < 0.5
            extents.append(ZeroExtent(position, length, not is_data, not is_data))
            if is_data:
                os.pwrite(file.fileno(), b"\xdd" * length, position)
            position += length
    layout = Qcow2Layout(size, extents)
    with open(disk, "rb") as source, open(qcow2, "wb") as target:
        for part in layout.parts(0, layout.length):
            if isinstance(part, DiskRange):
                source.seek(part.offset)
                part = source.read(part.length)
            target.write(part)
    assert img.info(str(qcow2))["virtual-size"] == size
    for command in (["check", qcow2], ["compare", "-f", "raw", "-F", "qcow2", disk, qcow2]):
        subprocess.run(["qemu-img", *command], check=True, capture_output=True)


def test_places():
    """Three runs, the second of which begins within a cluster."""
    layout = Qcow2Layout(4 * MIB, data((0, CLUSTER), (3 * CLUSTER + 1, CLUSTER), (4 * MIB - 1, 1)))
    start = layout.tables_length
    assert list(layout.places(0, 4 * MIB)) == [
        (0, CLUSTER, start),
        (CLUSTER, 2 * CLUSTER, None),
        (3 * CLUSTER, 2 * CLUSTER, start + CLUSTER),
        (5 * CLUSTER, 4 * MIB - 6 * CLUSTER, None),
        (4 * MIB - CLUSTER, CLUSTER, start + 3 * CLUSTER),
    ]
    assert list(layout.places(4 * CLUSTER + 7, 10)) == [(4 * CLUSTER + 7, 10, start + 2 * CLUSTER + 7)]
    assert list(layout.places(2 * CLUSTER, 10)) == [(2 * CLUSTER, 10, None)]
    assert list(layout.places(0, 0)) == []
    assert list(Qcow2Layout(MIB).places(10, 20)) == [(10, 20, None)]


@given(st.data())
def test_places_are_those_of_the_tables(draw):
    clusters = draw.draw(st.sets(st.integers(0, 100)))
    size = 101 * CLUSTER
    layout = Qcow2Layout(size, data(*((number * CLUSTER, CLUSTER) for number in sorted(clusters))))
    reader = Reader(image(layout))
    offset = draw.draw(st.integers(0, size))
    length = draw.draw(st.integers(0, size - offset))
    position = offset
    for start, count, place in layout.places(offset, length):
        assert start == position
        for within in range(start, start + count, 4096):
            expected = reader.cluster(within // CLUSTER)
            found = place and place + within - start
            assert found == (None if expected is None else expected + within % CLUSTER)
        position += count
    assert position == offset + length


@pytest.mark.parametrize("others, blocks", [(1, 1), (32766, 1), (32767, 2), (2 * 32768 - 3, 2), (2 * 32768 - 2, 3)])
def test_refcount_blocks_count_themselves_and_their_table(others, blocks):
    """A block counts 32768 clusters."""
    assert refcount_blocks(others) == blocks
