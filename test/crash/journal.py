"""Copies of the client library that can be resumed, and crashes at each point: what the journal says is done is done.

The journal that a crash leaves is the last one whose folder was synced, or any later one.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from crash.filelog import Names, logging_file
from crash.ledger import Lost
from fakes.imageserver import ImageServer
from fakes.volatile import VolatileDisk, VolatileServer

from ovirt_imageio import client
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.client import remote, resume, transfer
from ovirt_imageio.client.copy import engine, plan, reach
from ovirt_imageio.geometry.extent import ZeroExtent

__all__ = ["WAYS", "crash_journal"]

PIECE = 1024
PIECES = 200
SIZE = PIECE * PIECES

# A checkpoint after so many bytes.
CHECKPOINT = 8 * PIECE

# What is copied, and what the journal is about before that.
WAYS = ("download", "upload", "download-of-a-lost-image")

# Every second piece, so that there is a task for each; a hole reads as zero.
DATA = b"".join(os.urandom(PIECE) if number % 2 else bytes(PIECE) for number in range(PIECES))
EXTENTS = [ZeroExtent(n * PIECE, PIECE, n % 2 == 0, n % 2 == 0) for n in range(PIECES)]


class Interrupt(Exception):
    """The copy shall go on another time."""


def crash_journal(folder: Path, way: str, seed: int, subsets: int = 2) -> tuple[int, int]:
    """Copy, and crash at each point; return how many disks were rebuilt, and how many ranges were to be there."""
    dice = random.Random(seed)
    disk = VolatileDisk(SIZE)
    journal = folder / "journal"
    with small_tasks(), ImageServer(folder, port=0) as server:
        if way == "upload":
            names = upload(folder, server, disk, journal, seed)
        else:
            names = download(folder, server, disk, journal, is_lost=way.endswith("lost-image"))
    return check(disk, names, dice, subsets)


@contextlib.contextmanager
def small_tasks() -> Iterator[None]:
    """Let a copy in a with block have as many tasks, and checkpoints, as one that is a thousand times as large."""
    near = reach.NEAR._replace(max_copy=PIECE, max_gap=0)
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (engine, "CHECKPOINT", CHECKPOINT),
            (transfer, "UPLOAD_GAP", 0),
            (reach, "NEAR", near),
            (remote, "NEAR", near),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        yield


def download(folder: Path, server: ImageServer, disk: VolatileDisk, journal: Path, *, is_lost: bool) -> Names:
    """Download; perhaps after an attempt that failed, and of which the image was lost."""
    image = str(folder / "image")
    options: dict[str, Any] = {"fmt": "raw", "resume": str(journal), "max_workers": 3, "retries": 0}
    server.add("ticket", lambda: MemoryBackend(DATA, extents={"zero": EXTENTS}), size=SIZE)
    if is_lost:
        with contextlib.suppress(Interrupt), mock.patch.object(resume.Journal, "record", record_and_interrupt):
            client.download(server.url("ticket"), image, None, **options)
            raise AssertionError("it should have been interrupted")
        os.unlink(image)
    names = Names(str(journal))
    with logging_file(image, disk, names):
        client.download(server.url("ticket"), image, None, **options)
    assert Path(image).read_bytes() == DATA
    return names


def upload(folder: Path, server: ImageServer, disk: VolatileDisk, journal: Path, seed: int) -> Names:
    """Upload a file to a disk behind an NBD server."""
    image = folder / "image"
    image.write_bytes(DATA)
    names = Names(str(journal))
    with VolatileServer(disk, seed) as nbd, logging_file(str(image), VolatileDisk(0), names_of(names, disk)):
        server.add("ticket", lambda: NBDBackend(nbd.url, writable=True), ops=["write"], size=SIZE)
        client.upload(str(image), server.url("ticket"), None, resume=str(journal), max_workers=3, retries=0)
    assert bytes(disk.data) == DATA
    return names


def names_of(names: Names, disk: VolatileDisk) -> Any:
    """Return the names, with points in the log of another disk than that of the file."""

    class There:
        path = names.path

        def note(self, point: int) -> None:
            names.note(disk.note())

        def note_sync(self, point: int) -> None:
            names.note_sync(disk.note())

    return There()


record = resume.Journal.record


def record_and_interrupt(self: resume.Journal, tasks: Iterable[plan.Task]) -> None:
    """Let a copy be interrupted when its journal says that something is done."""
    record(self, tasks)
    if self.done:
        raise Interrupt


def check(disk: VolatileDisk, names: Names, dice: random.Random, subsets: int) -> tuple[int, int]:
    """Rebuild the disk for a crash at each point, and compare what each journal says that may be there."""
    disks = ranges = 0
    for point in range(len(disk.log) + 1):
        journals = list(told(names, point))
        for _ in range(subsets):
            left = disk.after_crash(point, dice)
            disks += 1
            for start, end in (item for journal in journals for item in journal):
                ranges += 1
                if left[start:end] != DATA[start:end]:
                    raise Lost(f"crash at {point}: the journal says that {start} to {end} is done")
    return disks, ranges


def told(names: Names, point: int) -> Iterator[list[tuple[int, int]]]:
    """Yield what is done according to each journal that may be there after a crash."""
    for content in names.after_crash(point):
        if content is not None:
            yield list(resume.decode(content).done)
