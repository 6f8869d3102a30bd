"""Lanes: what they send, and from what they recover."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.tasks import copy, ignore, zero
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.client.copy import lanes
from ovirt_imageio.client.copy.plan import COPY, Task
from ovirt_imageio.client.copy.reach import NEAR
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.origin.image import Image

MiB = 1024**2
DATA = bytes(range(256)) * (4 * MiB // 256)


def upload(origin, data: bytes = DATA, moved=ignore) -> lanes.UploadLane:
    return lanes.UploadLane(lambda: MemoryBackend(data), lambda line: Image(origin.url), moved)


def run(lane, *tasks: Task) -> None:
    try:
        for task in tasks:
            lane.begin(task)
            while lane.is_full:
                lane.finish()
        while lane.is_busy:
            lane.finish()
        lane.flush()
    finally:
        lane.close()


class Unclosable(MemoryBackend):
    """A disk that fails when it is closed, as one on network storage may."""

    def close(self) -> None:
        raise errors.StorageError("close", "it was not written")


def test_both_ends_are_closed_though_one_fails():
    """The connection to the server was left open."""
    closed: list[Image] = []

    class Closing(Image):
        def close(self) -> None:
            super().close()
            closed.append(self)

    with DiskOrigin(b"x" * MiB) as origin:
        lane = lanes.UploadLane(lambda: Unclosable(DATA), lambda line: Closing(origin.url), ignore)
        lane.begin(copy(0, 100))
        lane.finish()
        with pytest.raises(errors.StorageError, match="it was not written"):
            lane.close()
        assert closed


def test_upload():
    moved: list[int] = []
    with DiskOrigin(b"x" * len(DATA)) as origin:
        run(upload(origin, moved=moved.append), copy(0, 100), zero(100, MiB), copy(2 * MiB, 2 * MiB))
        expected = DATA[:100] + bytes(MiB) + b"x" * (MiB - 100) + DATA[2 * MiB :]
        assert origin.data == expected
        assert origin.methods() == ["OPTIONS", "PUT", "PATCH", "PUT", "PATCH"]
        assert origin.messages[-1] == {"op": "flush"}
    assert sum(moved) == 100 + 2 * MiB


def test_upload_that_looks_for_zeroes():
    data = DATA[:MiB] + bytes(MiB) + DATA[:MiB]
    moved: list[int] = []
    with DiskOrigin(b"x" * len(data)) as origin:
        open_local, open_remote = (lambda: MemoryBackend(data)), (lambda line: Image(origin.url))
        lane = lanes.UploadLane(open_local, open_remote, moved.append, detect_zeroes=True)
        run(lane, copy(0, MiB), copy(MiB, MiB), copy(2 * MiB, MiB))
        assert origin.data == data
        assert origin.methods() == ["OPTIONS", "PUT", "PATCH", "PUT", "PATCH"]
    assert sum(moved) == 2 * MiB


def test_upload_to_a_server_that_cannot_zero_or_flush():
    with DiskOrigin(b"x" * MiB) as origin:
        origin.options = None
        run(upload(origin), copy(0, 100), zero(100, 1000))
        assert origin.data[:1100] == DATA[:100] + bytes(1000)
        assert origin.methods() == ["OPTIONS", "PUT", "PUT"]


def download(origin, disk: bytearray, moved=ignore) -> lanes.DownloadLane:
    return lanes.DownloadLane(lambda: MemoryBackend(disk), lambda line: Image(origin.url), moved)


def test_download_writes_the_parts_alone():
    disk = bytearray(b"x" * len(DATA))
    moved: list[int] = []
    task = Task(COPY, 0, 3 * MiB, ((0, 100), (1000, MiB), (3 * MiB - 100, 100)))
    with DiskOrigin(DATA) as origin:
        run(download(origin, disk, moved.append), task, zero(100, 10))
        assert origin.methods() == ["OPTIONS", "GET"]
    expected = bytearray(b"x" * len(DATA))
    for start, length in task.parts:
        expected[start : start + length] = DATA[start : start + length]
    expected[100:110] = bytes(10)
    assert disk == expected
    assert sum(moved) == task.size


@pytest.mark.parametrize(("told", "limit"), [({}, 1), ({"transfer_id": "x"}, NEAR.requests)])
def test_several_requests_only_for_servers_that_can(told, limit):
    with DiskOrigin(DATA) as origin:
        origin.options.update(told)
        lane = upload(origin)
        count = 0
        while not lane.is_full:
            lane.begin(copy(count * 10, 10))
            count += 1
        assert count == limit
        lane.close()


def test_large_requests_wait_in_pairs():
    with DiskOrigin(bytes(64 * MiB)) as origin:
        origin.options["transfer_id"] = "x"
        lane = download(origin, bytearray())
        lane.begin(copy(0, 32 * MiB))
        assert not lane.is_full
        lane.begin(copy(32 * MiB, 32 * MiB))
        assert lane.is_full
        lane.close()


def test_recovers_from_a_lost_connection():
    with DiskOrigin(DATA) as origin:
        origin.options["transfer_id"] = "x"
        lane = download(origin, bytearray(len(DATA)))
        lane.begin(copy(0, 10))
        lane.begin(copy(10, 10))
        assert lane.recover(errors.BackendUnavailable("read", "lost")) == [copy(0, 10), copy(10, 10)]
        assert not lane.is_busy
        run(lane, copy(0, 10))


def test_does_not_recover_from_a_fault_here():
    class Dead(MemoryBackend):
        def size(self):
            raise errors.BackendUnavailable("open", "qemu-nbd died")

    with DiskOrigin(DATA) as origin:
        lane = lanes.DownloadLane(lambda: Dead(b""), lambda line: Image(origin.url), ignore)
        lane.begin(copy(0, 10))
        with pytest.raises(errors.BackendUnavailable, match="lost"):
            lane.recover(errors.BackendUnavailable("read", "lost"))
        lane.close()


def test_local_disk_that_is_too_short():
    with DiskOrigin(DATA) as origin:
        lane = upload(origin, DATA[:50])
        with pytest.raises(errors.PartialContent):
            lane.begin(copy(0, 100))
        lane.close()


def test_interrupt_wakes_a_lane_that_waits():
    def stall(wire) -> None:
        wire.options()
        wire.read_head()
        wire.stall()

    with ScriptedOrigin(stall) as origin:
        lane = download(origin, bytearray(100))
        lane.begin(copy(0, 10))
        lane.interrupt()
        with pytest.raises(errors.OperationCanceled):
            lane.finish()
        lane.close()


def test_interrupt_wakes_a_lane_that_waits_for_a_connection():
    def stall(wire) -> None:
        wire.read_head()
        wire.stall()

    with ScriptedOrigin(stall) as origin, ThreadPoolExecutor(1) as pool:
        open_remote = Remote(f"http://127.0.0.1:{origin.port}/images/x", None, retries=5).open
        lane = lanes.DownloadLane(lambda: MemoryBackend(bytearray(100)), open_remote, ignore)
        job = pool.submit(lane.begin, copy(0, 10))
        assert origin.stalled.wait(DEADLINE)
        lane.interrupt()
        with pytest.raises((errors.OperationCanceled, OSError)):
            job.result(20)
        lane.close()


def test_a_window_of_large_requests_for_servers_that_are_far():
    with DiskOrigin(bytes(64 * MiB)) as origin:
        origin.options["transfer_id"] = "x"
        reach = NEAR._replace(window=20 * MiB)
        lane = lanes.DownloadLane(lambda: MemoryBackend(b""), lambda line: Image(origin.url), ignore, reach=reach)
        count = 0
        while not lane.is_full:
            lane.begin(copy(count * 4 * MiB, 4 * MiB))
            count += 1
        assert count == 5
        lane.close()


def test_what_ended_is_not_in_the_window():
    disk = bytearray(16 * MiB)
    with DiskOrigin(bytes(16 * MiB)) as origin:
        origin.options["transfer_id"] = "x"
        reach = NEAR._replace(window=8 * MiB)
        lane = lanes.DownloadLane(lambda: MemoryBackend(disk), lambda line: Image(origin.url), ignore, reach=reach)
        lane.begin(copy(0, 4 * MiB))
        lane.begin(copy(4 * MiB, 4 * MiB))
        assert lane.is_full
        lane.finish()
        assert not lane.is_full
        lane.close()


def test_a_slow_connection_gets_fewer_requests():
    clock = [0.0]
    disk = bytearray(16 * MiB)
    with DiskOrigin(bytes(16 * MiB)) as origin:
        origin.options["transfer_id"] = "x"
        reach = NEAR._replace(window=2 * MiB, seconds=1, least=MiB, min_copy=MiB // 4, share=4)
        lane = lanes.DownloadLane(
            lambda: MemoryBackend(disk), lambda line: Image(origin.url), ignore, reach=reach, now=lambda: clock[0]
        )

        def fill():
            count = 0
            while not lane.is_full:
                lane.begin(copy(0, MiB))
                count += 1
            return count

        assert fill() == 2
        assert lane.longest == MiB // 2
        # 1 MiB in a fifth of a second: 5 MiB in a second.
        clock[0] += 0.2
        lane.finish()
        assert fill() == 4
        assert lane.longest == 5 * MiB // 4
        # The next one took eight seconds.
        clock[0] += 8
        lane.finish()
        assert fill() == 0
        assert lane.is_busy
        assert lane.longest == MiB // 4
        lane.close()
