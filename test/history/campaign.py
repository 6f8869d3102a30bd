"""One history from beginning to end: clients at work, what disturbs them, and the verdict."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Callable

from history.checker import decode
from history.clients import HttpClient, drive
from history.disks import PATH, Served, served

from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.ops import checksum

__all__ = ["judge", "run", "take"]

# How long clients work between two disturbances.
WORK_SECONDS = 0.3


def run(kind: str, folder: Path, seed: int, count: int, removals: int = 0, kills: int = 0) -> Counter[str]:
    """Let clients do `count` things each on a kind of disk; return how often what was done.

    Meanwhile the ticket is removed, and processes are killed, so often. Raises AssertionError for what could not have
    been, storage.Missing if this system does not have such a disk.
    """
    with served(kind, folder) as disk:
        return take(disk, seed, count, removals, kills)


def take(disk: Served, seed: int, count: int, removals: int = 0, kills: int = 0) -> Counter[str]:
    """Do that with a disk."""
    disturb(disk, random.Random(seed), removals, kills, lambda: drive(disk.recorder, disk.makers, seed, count))
    return judge(disk, seed)


def judge(disk: Served, seed: int) -> Counter[str]:
    """Look at the disk when all is quiet; return how often what was done, or raise AssertionError."""
    look_at_all(disk)
    disk.recorder.finish()
    faults = list(disk.recorder.history.faults())
    assert not faults, f"{len(faults)} faults with seed {seed}:\n" + "\n".join(faults[:10])
    return disk.recorder.counts


def disturb(disk: Served, dice: random.Random, removals: int, kills: int, work: Callable[[], None]) -> None:
    """Disturb the work until it ends, or until nothing is left to disturb it with."""
    victims = [dice.choice(disk.victims) for _ in range(kills if disk.victims else 0)]
    todo: list[Callable[[], None]] = [disk.remove] * removals
    todo += [lambda victim=victim: disk.kill(victim) for victim in victims]  # type: ignore[misc]
    dice.shuffle(todo)
    errors: list[BaseException] = []

    def live() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=live, name="work")
    thread.start()
    try:
        for what in todo:
            thread.join(WORK_SECONDS)
            what()
            disk.recorder.counts["disturbed"] += 1
    except BaseException:
        disk.recorder.is_over.set()
        raise
    finally:
        thread.join()
    if errors:
        raise errors[0]


def look_at_all(disk: Served) -> None:
    """Read everything at the end, when all is quiet: also the checksum is that of what is read."""
    client = HttpClient(disk.recorder, random.Random(0), disk.connect, PATH)
    try:
        begin = time.monotonic()
        data, digest = client.read_all()
    finally:
        client.close()
    disk.recorder.found("all", 0, decode(data), begin)
    operation = checksum.Checksum(MemoryBackend(data), "blake2b", checksum.BLOCK_SIZE, len(data))
    operation.run()
    assert digest == operation.result, "the checksum is not that of what is read"
