"""The nbd backend against qemu: formats, chains, bitmaps, and the incremental backup of a running disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

import pytest
from fakes.waiting import DEADLINE
from real.nbd import StorageDaemon, nbdinfo, run, uri

from ovirt_imageio import errors
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = [
    pytest.mark.storage,
    pytest.mark.skipif(not shutil.which("qemu-nbd"), reason="needs qemu-nbd"),
]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
# Of qcow2, and of its bitmaps.
CLUSTER = 64 * KIB
SIZE = 64 * CLUSTER


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "disk")


def create(path, size=SIZE, backing=None):
    """Create a qcow2 image."""
    chain = ["-b", backing, "-F", "qcow2"] if backing else []
    run(["qemu-img", "create", "-q", "-f", "qcow2", *chain, path, size])


def write(path, *commands):
    """Change an image with the commands of qemu-io."""
    run(["qemu-io", "-f", "qcow2", *(word for command in commands for word in ("-c", command)), path])


@contextlib.contextmanager
def opened(path, format="qcow2", dirty=False, writable=False, sparse=True, **options):
    """A backend, on a qemu-nbd of its own."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(QemuNbd(path, format, cache="writeback", aio="threads", **options))
        backend = NBDBackend(server.url, dirty=dirty, writable=writable, sparse=sparse)
        yield stack.enter_context(contextlib.closing(backend))


def read_all(backend):
    view = memoryview(bytearray(backend.size()))
    assert backend.readinto(0, view) == len(view)
    return bytes(view)


def zero(cluster, count, hole=True):
    return ZeroExtent(cluster * CLUSTER, count * CLUSTER, True, hole)


def data(cluster, count):
    return ZeroExtent(cluster * CLUSTER, count * CLUSTER, False, False)


# Zero extents


def test_qcow2(path):
    create(path)
    write(path, "write -P 1 0 64k", "write -P 2 256k 128k", "write -z 512k 64k")
    with opened(path) as backend:
        assert list(backend.extents()) == [
            data(0, 1),
            zero(1, 3),
            data(4, 2),
            zero(6, 2),
            zero(8, 1, False),
            zero(9, 55),
        ]
        content = read_all(backend)
    expected = b"\1" * CLUSTER + bytes(3 * CLUSTER) + b"\2" * 2 * CLUSTER
    assert content == expected.ljust(SIZE, b"\0")


def test_raw(path):
    with open(path, "wb") as f:
        f.truncate(SIZE)
        f.seek(4 * CLUSTER)
        f.write(b"x" * CLUSTER)
    with opened(path, "raw") as backend:
        assert list(backend.extents()) == [zero(0, 4, False), data(4, 1), zero(5, 59, False)]


def test_empty_raw(path):
    with open(path, "wb"):
        pass
    with opened(path, "raw") as backend:
        assert backend.size() == 0
        assert list(backend.extents()) == []
        assert backend.readinto(0, memoryview(bytearray(10))) == 0


def test_backing_chain(path):
    base, middle = path + ".base", path + ".middle"
    create(base)
    write(base, "write -P 1 0 64k", "write -P 1 64k 64k")
    create(middle, backing=base)
    write(middle, "write -P 2 128k 64k")
    create(path, backing=middle)
    write(path, "write -z 64k 64k", "write -P 3 192k 64k")
    with opened(path) as backend:
        assert list(backend.extents()) == [data(0, 1), zero(1, 1, False), data(2, 2), zero(4, 60)]
        content = read_all(backend)
        assert content[:CLUSTER] == b"\1" * CLUSTER
        assert not any(content[CLUSTER : 2 * CLUSTER])
        assert content[3 * CLUSTER : 4 * CLUSTER] == b"\3" * CLUSTER
    with opened(path, backing_chain=False) as backend:
        assert list(backend.extents()) == [zero(0, 1), zero(1, 1, False), zero(2, 1), data(3, 1), zero(4, 60)]


def test_compressed(path):
    raw = path + ".raw"
    with open(raw, "wb") as f:
        f.write(b"easy to compress" * (SIZE // 32) + bytes(SIZE // 2))
    run(["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", raw, path])
    assert os.path.getsize(path) < SIZE // 4
    with opened(path) as backend:
        assert read_all(backend) == b"easy to compress" * (SIZE // 32) + bytes(SIZE // 2)
        assert list(backend.extents()) == [data(0, 32), zero(32, 32)]


def test_long_extents(path):
    create(path, "12G")
    write(path, "write -P 1 6G 64k")
    with opened(path) as backend:
        assert list(backend.extents()) == [
            ZeroExtent(0, 6 * GIB, True, True),
            ZeroExtent(6 * GIB, CLUSTER, False, False),
            ZeroExtent(6 * GIB + CLUSTER, 6 * GIB - CLUSTER, True, True),
        ]


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_fragmented(path, format):
    """Two thousand extents that alternate."""
    count = 1000
    raw = path + ".raw"
    with open(raw, "wb") as f:
        for index in range(count):
            f.seek(index * 2 * CLUSTER)
            f.write(b"x" * CLUSTER)
        f.truncate(count * 2 * CLUSTER)
    run(["qemu-img", "convert", "-q", "-f", "raw", "-O", format, raw, path])
    with opened(path, format) as backend:
        found = list(backend.extents())
        assert len(found) == 2 * count
        assert [extent.zero for extent in found] == [False, True] * count
        assert list(backend.extents("zero", 3 * CLUSTER + 5, 2 * CLUSTER)) == [
            ZeroExtent(3 * CLUSTER + 5, CLUSTER - 5, True, format == "qcow2"),
            data(4, 1),
            ZeroExtent(5 * CLUSTER, 5, True, format == "qcow2"),
        ]


def test_nbdinfo_tells_the_same(path):
    create(path)
    write(path, "write -P 1 0 64k", "write -P 2 256k 128k", "write -z 512k 64k")
    with QemuNbd(path, "qcow2", cache="writeback", aio="threads") as server:
        theirs = nbdinfo(uri(server.url.removeprefix("nbd:unix:")), "--map")
        with contextlib.closing(NBDBackend(server.url)) as backend:
            ours = list(backend.extents())
    joined = []
    for extent in ours:
        if joined and joined[-1][2] == extent.zero:
            joined[-1] = (joined[-1][0], joined[-1][1] + extent.length, extent.zero)
        else:
            joined.append((extent.start, extent.length, extent.zero))
    expected = []
    for entry in theirs:
        is_zero = bool(entry["type"] & 2)
        if expected and expected[-1][2] == is_zero:
            expected[-1] = (expected[-1][0], expected[-1][1] + entry["length"], is_zero)
        else:
            expected.append((entry["offset"], entry["length"], is_zero))
    assert joined == expected


# Writing


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("sparse", [True, False])
def test_zero(path, format, sparse):
    """Space is given back only when the ticket is sparse."""
    run(["qemu-img", "create", "-q", "-f", format, path, SIZE])
    with opened(path, format, writable=True, sparse=sparse) as backend:
        backend.write(0, memoryview(b"x" * SIZE))
        backend.flush()
        before = os.stat(path).st_blocks
        backend.zero(0, SIZE)
        backend.flush()
        after = os.stat(path).st_blocks
        assert not any(read_all(backend))
    assert after < before // 2 if sparse else after >= before * 9 // 10


def test_flush_reaches_the_image(path):
    """What was flushed survives a qemu-nbd that is killed."""
    create(path)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(QemuNbd(path, "qcow2", cache="writeback", aio="threads"))
        backend = stack.enter_context(contextlib.closing(NBDBackend(server.url, writable=True)))
        backend.write(100, memoryview(b"x" * 1000))
        backend.flush()
        server.send_signal(signal.SIGKILL)
        server.wait(DEADLINE)
    assert "Pattern verification failed" not in run(["qemu-io", "-f", "qcow2", "-c", "read -P 0x78 100 1000", path])


# Dirty extents


def dirty_map(backend):
    """The clusters that are dirty."""
    clusters = []
    for extent in backend.extents("dirty"):
        assert isinstance(extent, DirtyExtent)
        if extent.dirty:
            assert extent.start % CLUSTER == extent.length % CLUSTER == 0
            clusters += range(extent.start // CLUSTER, (extent.start + extent.length) // CLUSTER)
    return clusters


def test_persistent_bitmap(path):
    create(path)
    write(path, "write -P 1 0 4M")
    run(["qemu-img", "bitmap", "--add", path, "backup"])
    write(path, "write -P 2 128k 64k", "write -z 640k 64k", "write -P 3 3M 128k")
    with opened(path, dirty=True, read_only=True, bitmap="backup") as backend:
        assert dirty_map(backend) == [2, 10, 48, 49]
        found = {extent.start // CLUSTER: extent.zero for extent in backend.extents("dirty")}
        assert found[2] is False
        assert found[10] is True
        assert sum(extent.length for extent in backend.extents("dirty")) == SIZE
        assert [e.start for e in backend.extents("zero")] == [0, 10 * CLUSTER, 11 * CLUSTER]


def test_the_ticket_does_not_ask_for_the_bitmap(path):
    create(path)
    run(["qemu-img", "bitmap", "--add", path, "backup"])
    with opened(path, read_only=True, bitmap="backup") as backend, pytest.raises(errors.UnsupportedContext) as e:
        backend.extents("dirty")
    assert "the ticket does not ask" in str(e.value)


def test_there_is_no_bitmap(path):
    create(path)
    with opened(path, dirty=True) as backend:
        with pytest.raises(errors.UnsupportedContext, match="exports no dirty bitmap"):
            backend.extents("dirty")
        assert list(backend.extents()) == [zero(0, 64)]


@pytest.fixture
def daemon(tmp_path):
    if not shutil.which("qemu-storage-daemon"):
        pytest.skip("needs qemu-storage-daemon")
    with StorageDaemon(tmp_path) as daemon:
        yield daemon


def add_disk(daemon, name, path, **options):
    file = {"driver": "file", "filename": path}
    daemon.run("blockdev-add", node_name=name, driver="qcow2", file=file, **options)


def test_several_bitmaps(daemon, path, tmp_path):
    """Which one is meant cannot be told."""
    create(path)
    for name in ("first", "second"):
        run(["qemu-img", "bitmap", "--add", path, name])
    socket_path = str(tmp_path / "sock")
    add_disk(daemon, "disk", path)
    daemon.run("nbd-server-start", addr={"type": "unix", "data": {"path": socket_path}})
    daemon.run(
        "block-export-add", id="e", type="nbd", node_name="disk", name="sda", writable=True, bitmaps=["first", "second"]
    )
    with contextlib.closing(NBDBackend(f"nbd:unix:{socket_path}:exportname=sda", dirty=True)) as backend:
        with pytest.raises(errors.UnsupportedContext, match=r"several dirty bitmaps: .*first, .*second"):
            backend.extents("dirty")
        assert list(backend.extents()) == [zero(0, 64, hole=False)]


class Bytes:
    """A sink that keeps what it gets."""

    socket = None

    def __init__(self):
        self.data = bytearray()

    def write(self, view):
        self.data += view


def test_incremental_backup(daemon, path, tmp_path):
    """A full backup, then one of what a running guest changed since, rebuilt from the dirty extents alone.

    The guest writes through an export of its own; while a backup is read, a job copies what the guest is about to
    change into a scratch disk, so that the backup sees the disk as it was when it began.
    """
    create(path)
    write(path, "write -P 1 0 4M")
    socket_path = str(tmp_path / "sock")
    add_disk(daemon, "disk", path)
    daemon.run("nbd-server-start", addr={"type": "unix", "data": {"path": socket_path}})
    daemon.run("block-export-add", id="guest", type="nbd", node_name="disk", name="guest", writable=True)
    guest = NBDBackend(f"nbd:unix:{socket_path}:exportname=guest", writable=True)
    with contextlib.closing(guest):
        daemon.run("block-dirty-bitmap-add", node="disk", name="since-full", granularity=CLUSTER)
        full = bytearray(read_all(guest))
        # The guest works: clusters 3, 20 and 21 change.
        guest.write(3 * CLUSTER + 100, memoryview(b"a" * 10))
        guest.write(20 * CLUSTER, memoryview(b"b" * 2 * CLUSTER))
        guest.flush()
        begin = read_all(guest)

        # The second backup begins: its point in time is now.
        scratch = path + ".scratch"
        create(scratch)
        run(["qemu-img", "rebase", "-q", "-u", "-b", path, "-F", "qcow2", scratch])
        add_disk(daemon, "scratch", scratch, backing="disk")
        daemon.run(
            "transaction",
            actions=[
                {
                    "type": "blockdev-backup",
                    "data": {"device": "disk", "job-id": "job", "target": "scratch", "sync": "none"},
                },
                {
                    "type": "block-dirty-bitmap-disable",
                    "data": {"node": "disk", "name": "since-full"},
                },
            ],
        )
        daemon.run(
            "block-export-add",
            id="backup",
            type="nbd",
            node_name="scratch",
            name="sda",
            bitmaps=[{"node": "disk", "name": "since-full"}],
        )
        # The guest goes on: the backup must not see it.
        guest.write(5 * CLUSTER, memoryview(b"c" * CLUSTER))
        guest.write(20 * CLUSTER, memoryview(b"d" * CLUSTER))
        guest.flush()

        with contextlib.closing(NBDBackend(f"nbd:unix:{socket_path}:exportname=sda", dirty=True)) as backup:
            assert dirty_map(backup) == [3, 20, 21]
            for extent in backup.extents("dirty"):
                if extent.dirty:
                    sink = Bytes()
                    backup.send_to(sink, extent.start, extent.length, lambda count: None)
                    full[extent.start : extent.start + extent.length] = sink.data
        assert full == begin
        assert read_all(guest) != begin
