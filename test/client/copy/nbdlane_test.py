"""The lane over NBD: what moves, how much is under way, and from what it recovers."""

from __future__ import annotations

import contextlib
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.imageserver import ImageServer
from fakes.origin import ScriptedOrigin
from fakes.tasks import copy, ignore, zero
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.client.copy import ends
from ovirt_imageio.client.copy.nbdlane import NBDLane, parts_within
from ovirt_imageio.client.copy.plan import COPY, Task
from ovirt_imageio.client.copy.reach import NEAR, reach
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.nbd.batches import MAX_LENGTH
from ovirt_imageio.nbd.wire import Mode

KiB = 1024
MiB = 1024 * KiB
SIZE = 16 * MAX_LENGTH
DATA = random.Random(1).randbytes(SIZE)


def local(disk):
    return lambda: ends.local_end(MemoryBackend(disk))


@pytest.fixture
def upload(tmp_path):
    """A function that makes a lane from bytes here to a disk there."""
    with ImageServer(tmp_path, port=0) as server:

        def make(source, disk, moved=ignore, **options):
            server.add("disk", disk, ops=["write"])
            remote = Remote(server.url("disk"), None)
            return NBDLane(local(source), remote.attach, moved, is_upload=True, **options)

        yield make


@pytest.fixture
def download(tmp_path):
    """A function that makes a lane from a disk there to one here."""
    with ImageServer(tmp_path, port=0) as server:

        def make(disk, target, moved=ignore):
            server.add("disk", disk)
            return NBDLane(local(target), Remote(server.url("disk"), None).attach, moved, is_upload=False)

        yield make


def run(lane, *tasks: Task) -> list[Task]:
    """Do as a worker does; return what ended."""
    done = []
    with contextlib.closing(lane):
        for task in tasks:
            while lane.is_full:
                done.append(lane.finish())
            lane.begin(task)
        while lane.is_busy:
            done.append(lane.finish())
        lane.flush()
    return done


def test_upload(upload):
    disk = bytearray(b"x" * SIZE)
    moved: list[int] = []
    tasks = [copy(0, 100), zero(100, 1000), copy(2 * MAX_LENGTH - 1, 10 * MAX_LENGTH), zero(SIZE - 10, 10)]
    assert run(upload(DATA, disk, moved.append), *tasks) == tasks
    expected = bytearray(b"x" * SIZE)
    for action, start, length, _ in tasks:
        expected[start : start + length] = DATA[start : start + length] if action == COPY else bytes(length)
    assert disk == expected
    assert sum(moved) == 100 + 10 * MAX_LENGTH


def test_many_small_tasks(upload):
    disk = bytearray(SIZE)
    tasks = [copy(start, 4 * KiB) for start in range(0, SIZE, 8 * KiB)]
    assert run(upload(DATA, disk), *tasks) == tasks
    assert all(disk[start : start + 4 * KiB] == DATA[start : start + 4 * KiB] for start in range(0, SIZE, 8 * KiB))


def test_upload_that_looks_for_zeroes(upload):
    data = DATA[:MAX_LENGTH] + bytes(MAX_LENGTH) + DATA[:MAX_LENGTH]
    disk = bytearray(b"x" * len(data))
    moved: list[int] = []
    run(upload(data, disk, moved.append, detect_zeroes=True), copy(0, len(data)))
    assert disk == data
    assert sum(moved) == 2 * MAX_LENGTH


def test_download_writes_the_parts_alone(download):
    target = bytearray(b"x" * SIZE)
    moved: list[int] = []
    parts = ((0, 100), (1000, 3 * MAX_LENGTH), (5 * MAX_LENGTH - 5, 10), (7 * MAX_LENGTH, 1))
    task = Task(COPY, 0, 7 * MAX_LENGTH + 1, parts)
    run(download(DATA, target, moved.append), task, zero(100, 10), copy(8 * MAX_LENGTH, 10))
    expected = bytearray(b"x" * SIZE)
    for start, length in (*parts, (8 * MAX_LENGTH, 10)):
        expected[start : start + length] = DATA[start : start + length]
    expected[100:110] = bytes(10)
    assert target == expected
    assert sum(moved) == task.size + 10


@pytest.mark.parametrize("seed", range(20))
def test_parts_within_a_range(seed):
    dice = random.Random(seed)
    cuts = sorted(dice.sample(range(1000), 2 * dice.randrange(1, 10)))
    parts = tuple((start, end - start) for start, end in zip(cuts[::2], cuts[1::2]))
    start, end = sorted(dice.sample(range(1001), 2))
    inside = [at for first, length in parts for at in range(first, first + length) if start <= at < end]
    assert [at for first, length in parts_within(parts, start, end) for at in range(first, first + length)] == inside


class Counting(ends.DiskEnd):
    """An end that remembers how much was under way at once."""

    def __init__(self, disk) -> None:
        super().__init__(disk)
        self.most = self.most_bytes = 0
        self._sizes: dict[object, int] = {}

    def read(self, item, start, length):
        super().read(item, start, length)
        self._sizes[item] = length
        self.most = max(self.most, len(self._sizes))
        self.most_bytes = max(self.most_bytes, sum(self._sizes.values()))

    def finish(self):
        done = super().finish()
        for item, _ in done:
            self._sizes.pop(item)
        return done


@pytest.mark.parametrize("length", [512, 64 * KiB, 8 * MAX_LENGTH])
def test_memory_is_bounded_and_the_line_is_full(length):
    source = Counting(MemoryBackend(DATA))
    target = bytearray(SIZE)
    lane = NBDLane(
        lambda: source, lambda line: ends.local_end(MemoryBackend(target)), ignore, is_upload=True
    )  # Both ends are here: it cannot tell.
    run(lane, *(copy(start, length) for start in range(0, SIZE, length)))
    assert target == DATA
    assert source.most <= NEAR.nbd_requests
    assert source.most_bytes <= NEAR.nbd_window + MAX_LENGTH
    assert source.most == NEAR.nbd_requests or source.most_bytes >= NEAR.nbd_window


@pytest.mark.parametrize("is_upload", [True, False])
def test_little_is_read_here_for_a_server_that_is_far(is_upload):
    """Another connection may be able to send the rest."""
    far = reach(0.1)._replace(nbd_window=4 * MiB)
    source = Counting(MemoryBackend(DATA))
    target = bytearray(SIZE)
    local, remote = (source, ends.local_end(MemoryBackend(target)))[:: 1 if is_upload else -1]
    lane = NBDLane(lambda: local, lambda line: remote, ignore, is_upload=is_upload, reach=far, now=lambda: 0.0)
    assert lane.longest == MiB
    run(lane, *(copy(start, 64 * KiB) for start in range(0, SIZE, 64 * KiB)))
    assert target == DATA
    assert source.most_bytes == (MiB if is_upload else 4 * MiB)


class OneByOne(ends.DiskEnd):
    """An end far away: replies come one after the other."""

    def finish(self):
        waiting = self._reads
        self._reads = deque([waiting.popleft()])
        done = super().finish()
        self._reads = waiting
        return done


def test_a_download_from_afar_asks_for_more_before_the_server_is_through():
    """The server would stand still for one round trip each time."""
    far = reach(0.1)
    source = OneByOne(MemoryBackend(DATA))
    target = bytearray(SIZE)
    lane = NBDLane(
        lambda: ends.local_end(MemoryBackend(target)), lambda line: source, ignore, is_upload=False, reach=far
    )
    count = 0
    while not lane.is_full:
        lane.begin(copy(count * 64 * KiB, 64 * KiB))
        count += 1
    assert source.count == far.nbd_window // (64 * KiB)
    before = source.count
    lane.finish()
    assert source.count >= before // 2
    lane.close()


def test_local_disk_that_is_too_short(upload):
    lane = upload(DATA[:50], bytearray(SIZE))
    with contextlib.closing(lane), pytest.raises(errors.PartialContent):
        lane.begin(copy(0, 100))
        lane.finish()


# Errors.


def leaving(wire):
    """A server that leaves with the first request."""
    wire.options(features=["nbd"])
    call = wire.upgrade()
    call.negotiate(size=SIZE, mode=Mode.SIMPLE)
    call.request()
    wire.close()


def serving(disk):
    """A good server of images."""

    def script(wire):
        wire.options(features=["nbd"])
        call = wire.upgrade()
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        call.serve(disk)

    return script


@pytest.mark.parametrize("is_upload", [True, False])
def test_recovers_from_a_lost_connection(is_upload):
    here, there = (bytearray(DATA), bytearray(SIZE)) if is_upload else (bytearray(SIZE), bytearray(DATA))
    with ScriptedOrigin(leaving, serving(there)) as origin:
        lane = NBDLane(local(here), Remote(origin.url, None).attach, ignore, is_upload=is_upload)
        tasks = [copy(0, 8 * MAX_LENGTH), copy(8 * MAX_LENGTH, 10), zero(9 * MAX_LENGTH, 10)]
        for task in tasks:
            lane.begin(task)
        with pytest.raises(errors.BackendUnavailable) as error:
            lane.finish()
        assert lane.recover(error.value) == tasks
        assert not lane.is_busy
        run(lane, *tasks)
    assert (there if is_upload else here)[: 8 * MAX_LENGTH + 10] == DATA[: 8 * MAX_LENGTH + 10]


def test_task_that_cannot_begin_is_not_under_way():
    def refuse(wire):
        wire.options(features=["nbd"])
        wire.read_head()
        wire.answer(503, b"Try again")

    with ScriptedOrigin(refuse) as origin:
        lane = NBDLane(local(DATA), Remote(origin.url, None).attach, ignore, is_upload=True)
        with pytest.raises(errors.OriginError) as error:
            lane.begin(copy(0, 10))
        assert lane.recover(error.value) == []
        lane.close()


def test_does_not_recover_from_what_the_server_refuses():
    def full(wire):
        wire.options(features=["nbd"])
        call = wire.upgrade()
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        call.simple(call.request(), 28)
        call.wait_for_hangup()

    with ScriptedOrigin(full) as origin:
        lane = NBDLane(local(DATA), Remote(origin.url, None).attach, ignore, is_upload=True)
        lane.begin(copy(0, 10))
        with pytest.raises(errors.NoSpace) as error:
            lane.finish()
        with pytest.raises(errors.NoSpace):
            lane.recover(error.value)
        lane.close()


def test_does_not_recover_from_a_fault_here():
    opened = []

    def open_local():
        if opened:
            raise errors.BackendUnavailable("open", "qemu-nbd died")
        opened.append(True)
        return ends.local_end(MemoryBackend(DATA))

    with ScriptedOrigin(leaving) as origin:
        lane = NBDLane(open_local, Remote(origin.url, None).attach, ignore, is_upload=True)
        lane.begin(copy(0, 10))
        with pytest.raises(errors.BackendUnavailable, match="lost"):
            lane.recover(errors.BackendUnavailable("read", "lost"))
        lane.close()


def test_interrupt_wakes_a_lane_that_waits():
    def stall(wire):
        wire.options(features=["nbd"])
        call = wire.upgrade()
        call.negotiate(size=SIZE, mode=Mode.SIMPLE)
        call.request()
        wire.stall()

    with ScriptedOrigin(stall) as origin, ThreadPoolExecutor(1) as pool:
        lane = NBDLane(local(bytearray(100)), Remote(origin.url, None).attach, ignore, is_upload=False)
        lane.begin(copy(0, 10))
        job = pool.submit(lane.finish)
        assert origin.stalled.wait(DEADLINE)
        lane.interrupt()
        with pytest.raises(errors.Error):
            job.result(DEADLINE)
        with pytest.raises(errors.OperationCanceled):
            lane.begin(copy(0, 10))
        lane.close()


@pytest.mark.parametrize("is_upgraded", [False, True])
def test_interrupt_wakes_a_lane_that_waits_for_a_connection(is_upgraded):
    def stall(wire):
        wire.options(features=["nbd"])
        if is_upgraded:
            wire.upgrade()
        else:
            wire.read_head()
        wire.stall()

    with ScriptedOrigin(stall) as origin, ThreadPoolExecutor(1) as pool:
        lane = NBDLane(local(DATA), Remote(origin.url, None).attach, ignore, is_upload=True)
        job = pool.submit(lane.begin, copy(0, 10))
        assert origin.stalled.wait(DEADLINE)
        lane.interrupt()
        with pytest.raises((errors.Error, OSError)):
            job.result(DEADLINE)
        lane.close()
