"""Images that are written without qemu, which finds nothing wrong in them."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess

import pytest

from ovirt_imageio import errors
from ovirt_imageio.client.newqcow2 import NewQcow2
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.geometry.outline import Outline
from ovirt_imageio.geometry.qcow2 import Qcow2Layout
from ovirt_imageio.qemu import img
from ovirt_imageio.storage import direct

pytestmark = pytest.mark.storage

KIB = 1024
MIB = 1024**2
TIB = 1024**4
CLUSTER = 64 * KIB
# The largest that a raw file on ext4 can be compared with.
HUGE = 16 * TIB - CLUSTER
LIMIT = 10**6


def outline(size, *ranges):
    """Return the outline of a disk with data in these ranges, as start and length."""
    extents, end = [], 0
    for start, length in [*ranges, (size, 0)]:
        extents += [ZeroExtent(end, start - end, True, True), ZeroExtent(start, length, False, False)]
        end = start + length
    return Outline(size, extents, LIMIT)


class Bytes:
    """Bytes as a source."""

    socket = None

    def __init__(self, data):
        self._data = memoryview(data)

    def readinto(self, view):
        count = min(len(view), len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count

    def advance(self, count):
        raise AssertionError


def content(start, length):
    """Return the bytes of a range, which are others for each start; never zeroes."""
    return (bytes([1 + start // 512 % 255]) * 512 * (length // 512 + 1))[:length]


def write(path, plan, *, streamed=False, connections=2):
    """Write an image in any order, over several connections."""
    image = NewQcow2(str(path), plan)
    ranges = [extent for extent in plan.extents() if extent.data]
    random.Random(1).shuffle(ranges)
    image.create()
    with image.served(connections) as open_disk, contextlib.ExitStack() as stack:
        disks = [stack.enter_context(contextlib.closing(open_disk())) for _ in range(connections)]
        for number, extent in enumerate(ranges):
            disk = disks[number % connections]
            data = content(extent.start, extent.length)
            if streamed:
                disk.receive_from(Bytes(data), extent.start, extent.length, lambda count: None)
            else:
                disk.write(extent.start, memoryview(data))
    return image


def check(path):
    done = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, text=True, check=True)
    assert "No errors were found" in done.stdout
    assert "leaked" not in done.stdout


def compare(path, plan, folder):
    """Raise if QEMU reads in the image another disk than the plan has."""
    raw = folder / "raw"
    with open(raw, "wb") as file:
        file.truncate(-(-plan.size // 512) * 512)
        for extent in plan.extents():
            if extent.data:
                file.seek(extent.start)
                file.write(content(extent.start, extent.length))
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, path], check=True, capture_output=True)


SHAPES = {
    "nothing": outline(0),
    "a sector": outline(512, (0, 512)),
    "no data": outline(700 * MIB),
    "no whole clusters": outline(MIB + 513, (0, 1), (CLUSTER - 1, 2), (MIB, 513)),
    "all data": outline(3 * MIB, (0, 3 * MIB)),
    "crumbs": outline(MIB, *((start, 4 * KIB) for start in range(0, MIB, 16 * KIB))),
    "far crumbs": outline(HUGE, (0, 4 * KIB), (8 * TIB + 4 * KIB, 4 * KIB), (HUGE - 512, 512)),
    "two tables": outline(1200 * MIB, (512 * MIB - CLUSTER, 2 * CLUSTER), (1100 * MIB, MIB)),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(tmp_path, shape, streamed):
    plan, path = SHAPES[shape], tmp_path / "image"
    write(path, plan, streamed=streamed)
    check(path)
    compare(path, plan, tmp_path)


def test_it_is_what_a_server_sends(tmp_path):
    plan, path = SHAPES["crumbs"], tmp_path / "image"
    write(path, plan)
    disk = bytearray(plan.size)
    for extent in plan.extents():
        if extent.data:
            disk[extent.start : extent.start + extent.length] = content(extent.start, extent.length)
    layout = Qcow2Layout(plan.size, plan.extents())
    sent = b"".join(
        part if isinstance(part, bytes) else disk[part.offset : part.offset + part.length]
        for part in layout.parts(0, layout.length)
    )
    assert path.read_bytes() == sent


@pytest.mark.slow
def test_200_000_extents(tmp_path):
    path = tmp_path / "image"
    plan = outline(200_000 * 2 * CLUSTER, *((number * 2 * CLUSTER, 4 * KIB) for number in range(200_000)))
    image = NewQcow2(str(path), plan)
    image.create()
    with image.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
        for start in (0, 99_999 * 2 * CLUSTER, 199_999 * 2 * CLUSTER):
            disk.write(start, memoryview(b"a" * 4096))
    assert img.info(str(path))["virtual-size"] == plan.size
    check(path)
    # What was not written is a hole, and so are most of the tables.
    assert path.stat().st_blocks * 512 < 8 * MIB


def test_tables_of_a_sparse_disk_are_holes(tmp_path):
    path = tmp_path / "image"
    # A crumb for each second L2 table.
    plan = outline(2 * TIB, *((start, 512) for start in range(0, 2 * TIB, 1024 * MIB)))
    NewQcow2(str(path), plan).create()
    assert path.stat().st_size > 128 * MIB
    # Of each a page of 4 KiB, of 64.
    assert path.stat().st_blocks * 512 < 9 * MIB


def test_zeroes_take_no_space(tmp_path):
    path = tmp_path / "image"
    image = NewQcow2(str(path), outline(32 * MIB, (0, 32 * MIB)))
    image.create()
    with image.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
        disk.write(0, memoryview(bytes(8 * MIB)))
        disk.receive_from(Bytes(bytes(24 * MIB)), 8 * MIB, 24 * MIB, lambda count: None)
    check(path)
    assert path.stat().st_blocks * 512 < MIB


def test_what_is_there_is_overwritten(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"old" * MIB)
    write(path, SHAPES["crumbs"])
    check(path)
    compare(path, SHAPES["crumbs"], tmp_path)


def test_no_image_before_the_end(tmp_path):
    path = tmp_path / "image"
    image = NewQcow2(str(path), SHAPES["all data"])
    image.create()

    class Failure(Exception):
        pass

    with pytest.raises(Failure), image.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
        disk.write(0, memoryview(content(0, MIB)))
        raise Failure
    image.close()
    assert img.info(str(path))["format"] == "raw"
    assert path.read_bytes()[:CLUSTER] == bytes(CLUSTER)


def test_going_on_with_what_was_written(tmp_path):
    path, plan = tmp_path / "image", SHAPES["crumbs"]
    first = NewQcow2(str(path), plan)
    first.create()
    ranges = [extent for extent in plan.extents() if extent.data]
    half = len(ranges) // 2
    with pytest.raises(ZeroDivisionError), first.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
        for extent in ranges[:half]:
            disk.write(extent.start, memoryview(content(extent.start, extent.length)))
        raise ZeroDivisionError
    first.close()
    second = NewQcow2(str(path), plan)
    assert second.tag == first.tag
    with second.opened() as disk:
        view = memoryview(bytearray(20 * KIB))
        assert disk.size() == plan.size
        assert disk.readinto(0, view) == len(view)
        assert bytes(view) == content(0, 4 * KIB) + bytes(12 * KIB) + content(16 * KIB, 4 * KIB)
        assert disk.readinto(plan.size - 512, view) == 512
    with second.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
        for extent in ranges[half:]:
            disk.write(extent.start, memoryview(content(extent.start, extent.length)))
    check(path)
    compare(path, plan, tmp_path)


def test_another_outline_has_another_tag(tmp_path):
    path = str(tmp_path / "image")
    assert NewQcow2(path, outline(MIB, (0, 1))).tag != NewQcow2(path, outline(MIB, (CLUSTER, 1))).tag


def test_a_file_that_was_cut_has_nothing(tmp_path):
    path, plan = tmp_path / "image", SHAPES["all data"]
    write(path, plan)
    with open(path, "r+b") as file:
        file.truncate(MIB)
    with NewQcow2(str(path), plan).opened() as disk:
        assert disk.size() == 0


def test_zeroing_and_reading_where_nothing_is(tmp_path):
    path, plan = tmp_path / "image", outline(4 * CLUSTER, (CLUSTER, CLUSTER))
    image = NewQcow2(str(path), plan)
    image.create()
    with image.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
        disk.write(CLUSTER, memoryview(content(0, CLUSTER)))
        disk.zero(0, CLUSTER + 512)
        view = memoryview(bytearray(b"\xff" * 4 * CLUSTER))
        assert disk.readinto(0, view) == len(view)
        assert bytes(view) == bytes(CLUSTER + 512) + content(0, CLUSTER)[512:] + bytes(2 * CLUSTER)
    check(path)


def test_it_leaves_the_page_cache(tmp_path):
    path = tmp_path / "image"
    write(path, outline(40 * MIB, (0, 40 * MIB)), streamed=True, connections=1)
    with direct.open_file(str(path), writable=False) as file:
        if not file.is_direct:
            pytest.skip("the page cache is all that this file system has")
    with open(path, "rb") as file, pytest.raises(BlockingIOError):
        # Reads only what is in memory.
        os.preadv(file.fileno(), [bytearray(4096)], 20 * MIB, os.RWF_NOWAIT)


def test_an_image_that_is_in_use_is_left_alone(tmp_path):
    path = tmp_path / "image"
    first, second = (NewQcow2(str(path), SHAPES["crumbs"]) for _ in range(2))
    first.create()
    before = path.read_bytes()
    with pytest.raises(errors.BackendUnavailable, match="another program uses"):
        second.create()
    assert path.read_bytes() == before
    first.close()
    second.close()
    second.create()
    second.close()


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match="none/image: No such file"):
        NewQcow2(str(tmp_path / "none" / "image"), SHAPES["crumbs"]).create()
