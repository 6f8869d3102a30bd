"""Power cuts: what was acknowledged with a flush is on the disk, whatever the disk still held in its cache.

The kernel logs every write and flush of the disk under a file system, or under the daemon itself, while clients write.
Then the disk is made again as a power cut may have left it, at each flush and after each one that was acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
from pathlib import Path

import pytest
from machine import writelog
from machine.service import output_of, run

MiB = 1024**2

# Of /dev/vdc: the disk that is written, and its log.
DATA = 384 * MiB
LOG = 1024 * MiB

CLIENTS = 4
OPERATIONS = 12
RANGE = MiB
SIZE = CLIENTS * RANGE
# What a test looks at; the rest of the states is left out at random, but by the one that is long.
STATES = 25
SECTOR = 512


class Client(threading.Thread):
    """Changes its own range at random, and notes what was there after each operation, and when that was promised."""

    def __init__(self, connection, path, number, mark, seed):
        super().__init__(name=f"client {number}")
        self._connection, self._path, self._number, self._mark = connection, path, number, mark
        self._random = random.Random(seed)
        # The content of the range after each operation that began.
        self.versions = [bytes(RANGE)]
        self.failure = None

    def run(self):
        try:
            with contextlib.closing(self._connection):
                for _ in range(OPERATIONS):
                    self.change()
                self.ask("PATCH", {"op": "flush"})
                self._mark(f"{self._number}:{len(self.versions) - 1}")
        except Exception as error:
            self.failure = error

    def change(self):
        length = self._random.randrange(1, 128) * SECTOR
        offset = self._random.randrange(0, RANGE - length, SECTOR)
        is_flushed = self._random.random() < 0.4
        is_zero = self._random.random() < 0.3
        data = bytes(length) if is_zero else self._random.randbytes(length)
        before = self.versions[-1]
        self.versions.append(before[:offset] + data + before[offset + length :])
        start = self._number * RANGE + offset
        if is_zero:
            self.ask("PATCH", {"op": "zero", "offset": start, "size": length, "flush": is_flushed})
        else:
            headers = {"Content-Range": f"bytes {start}-{start + length - 1}/*"}
            self.ask("PUT", data, f"?flush={'y' if is_flushed else 'n'}", headers)
        if is_flushed:
            self._mark(f"{self._number}:{len(self.versions) - 1}")

    def ask(self, method, body, suffix="", headers=None):
        content = body if isinstance(body, bytes) else json.dumps(body)
        self._connection.request(method, self._path + suffix, content, headers or {})
        response = self._connection.getresponse()
        said = response.read()
        assert response.status == 200, (method, response.status, said)


@pytest.fixture
def disk():
    """A block device that logs what is written to it; returns its path, and that of the log."""
    output_of("modprobe", "dm-log-writes")
    sectors, log_sectors = DATA // SECTOR, LOG // SECTOR
    # Nothing of another test is there: what is made again begins with zeroes.
    output_of("blkdiscard", "--force", "--zeroout", "--length", str(DATA), "/dev/vdc")
    names = ("power", "power-log", "power-data")
    output_of("dmsetup", "create", names[2], "--table", f"0 {sectors} linear /dev/vdc 0")
    output_of("dmsetup", "create", names[1], "--table", f"0 {log_sectors} linear /dev/vdc {sectors}")
    table = f"0 {sectors} log-writes /dev/mapper/power-data /dev/mapper/power-log"
    output_of("dmsetup", "create", names[0], "--table", table)
    yield Path("/dev/mapper/power"), Path("/dev/mapper/power-log")
    for name in names:
        run("dmsetup", "remove", "--retry", name)


def mark(text):
    output_of("dmsetup", "message", "power", "0", f"mark {text}")


@pytest.fixture
def place():
    """A folder in memory for disks that are made again."""
    folder = Path("/run/power")
    folder.mkdir()
    output_of("mount", "-t", "tmpfs", "-o", f"size={2 * DATA}", "tmpfs", str(folder))
    yield folder
    output_of("umount", str(folder))
    folder.rmdir()


MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("states", [STATES, pytest.param(1000, marks=pytest.mark.long)], ids=["some", "all"])
@pytest.mark.parametrize("kind", ["block", "ext4", "xfs"])
def test_what_was_flushed_survives_a_power_cut(kind, states, disk, place, running, capsys):
    seed = random.randrange(2**32)
    device, log = disk
    folder = Path("/mnt/power")
    folder.mkdir(exist_ok=True)
    image = device
    if kind != "block":
        output_of(*MAKE[kind], str(device))
        output_of("mount", str(device), str(folder))
        image = folder / "disk.raw"
        with image.open("wb") as file:
            file.truncate(SIZE)
    output_of("chown", "--dereference", "ovirtimg:", str(image))
    output_of("sync")
    mark("start")
    path = running.add_ticket(f"file://{image}", SIZE, sparse=True)
    clients = [Client(running.connect_local(), path, number, mark, seed + number) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    status, _ = running.control("DELETE", f"/tickets/{path.rpartition('/')[2]}")
    assert (status, [client.failure for client in clients if client.failure]) == (204, [])
    if kind != "block":
        output_of("umount", str(folder))
    output_of("dmsetup", "remove", "--retry", "power")
    with log.open("rb") as file:
        entries = list(writelog.read(file))
    found = replay(kind, entries, clients, place, random.Random(seed), states)
    flushes = sum(bool(entry.flags & writelog.FLUSH) for entry in entries)
    with capsys.disabled():
        print(f"\n{kind}: {len(entries)} writes, {flushes} flushes, {found} states looked at, seed {seed}")


def replay(kind, entries, clients, place, dice, states):
    """Make the disk again as it may be after each flush and mark, and compare; return how many were looked at."""
    start = next(number for number, entry in enumerate(entries) if entry.mark == "start")
    cuts = [cut for cut in writelog.states(entries) if cut[1] > start]
    chosen = sorted(dice.sample(cuts, min(states, len(cuts))))
    base, copy = place / "base", place / "copy"
    with base.open("wb") as file:
        file.truncate(DATA)
    done = 0
    with base.open("r+b") as disk:
        for safe, end in chosen:
            # What is sure comes in order, once; a copy gets the rest, of which anything may be missing.
            for entry in entries[done:safe]:
                writelog.apply(entry, disk)
            done = safe
            disk.flush()
            output_of("cp", "--sparse=always", str(base), str(copy))
            with copy.open("r+b") as file:
                for entry in entries[safe:end]:
                    if entry.flags & writelog.FUA or dice.random() < 0.5:
                        writelog.apply(entry, file)
            # The kernel puts a mark of its own at the end, without a colon.
            promised = dict(entry.mark.split(":") for entry in entries[start + 1 : end] if ":" in entry.mark)
            compare(content(kind, copy), clients, promised, end)
    # A comparison that finds nothing would be a poor one.
    with pytest.raises(AssertionError, match="client"):
        compare(bytes(SIZE), clients, {str(number): "1000" for number in range(CLIENTS)}, 0)
    return len(chosen)


def content(kind, copy):
    """Return what is on a disk after a power cut, when its file system has recovered."""
    if kind == "block":
        with copy.open("rb") as file:
            return file.read(SIZE)
    folder = Path("/mnt/recovered")
    folder.mkdir(exist_ok=True)
    output_of("mount", "-o", "loop", str(copy), str(folder))
    try:
        return (folder / "disk.raw").read_bytes()
    finally:
        output_of("umount", str(folder))


def compare(found, clients, promised, end):
    """Each sector has what was promised, or what an operation that began later wrote."""
    for number, client in enumerate(clients):
        oldest = min(int(promised.get(str(number), 0)), len(client.versions) - 1)
        versions = client.versions[oldest:]
        part = found[number * RANGE : (number + 1) * RANGE]
        for offset in range(0, RANGE, SECTOR):
            sector = part[offset : offset + SECTOR]
            assert any(version[offset : offset + SECTOR] == sector for version in versions), (
                f"client {number}, offset {offset}, after entry {end}: nothing of version {oldest} or later"
            )
