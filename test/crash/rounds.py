"""Rounds of clients that change a disk, and crashes at each point of what the disk did.

A round is made of a seed; the same seed makes the same requests, while the threads take turns as they like.
"""

from __future__ import annotations

import contextlib
import functools
import io
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from crash.clients import MOST, HttpClient, NbdClient
from crash.filelog import logging_file
from crash.ledger import Ledger, stamped
from fakes.imageserver import ImageServer, ProxyServer
from fakes.nbdpeer import FLAGS
from fakes.volatile import SECTOR, VolatileDisk, VolatileServer
from fakes.waiting import DEADLINE

from ovirt_imageio import directio
from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.nbd.wire import ExportFlag

__all__ = ["WAYS", "Result", "crash_after", "crash_amid", "crash_file"]

CLIENTS = 4
SECTORS = 12
# So many that what was safe before a power failure is not all written again after it.
MANY_SECTORS = 200

# How the clients reach the disk.
WAYS = ("http", "upgrade", "both", "proxy", "proxy-upgrade", "one-connection")


class Result(NamedTuple):
    """How many disks were rebuilt, how many sectors of them had to have something, and how many flushes there were."""

    disks: int
    sectors: int
    flushes: int


def crash_after(folder: Path, way: str, seed: int, steps: int = 20, subsets: int = 2) -> Result:
    """Let clients work, then rebuild the disk for a crash at each point. Raises Lost."""
    dice = random.Random(seed)
    disk = VolatileDisk(CLIENTS * SECTORS * SECTOR)
    # Without the promise that a flush covers all connections there is one connection.
    is_single = way == "one-connection"
    flags = FLAGS & ~ExportFlag.CAN_MULTI_CONN if is_single else FLAGS
    ledgers = [Ledger(disk.note) for _ in range(1 if is_single else CLIENTS)]
    with VolatileServer(disk, seed, flags) as nbd, serving(folder, way.startswith("proxy")) as server:
        server.add("disk", lambda: NBDBackend(nbd.url, writable=True), ops=["write"], size=len(disk.data))
        clients = [
            kind_of(way, number)(server.path, "disk", number * SECTORS, SECTORS, ledger, random.Random(dice.random()))
            for number, ledger in enumerate(ledgers)
        ]
        run_all([lambda client=client: client.run(steps) for client in clients])
        for client in clients:
            client.close()
            assert not client.failures, "nothing was broken, and a request failed"
    return check(disk, ledgers, dice, subsets)


def crash_amid(folder: Path, way: str, seed: int, steps: int = 20, failures: int = 3) -> Result:
    """Let the power of the NBD server fail, and come back, while clients work; then flush, and crash. Raises Lost."""
    dice = random.Random(seed)
    disk = VolatileDisk(CLIENTS * MANY_SECTORS * SECTOR)
    # The log begins anew with each failure: whatever was told before holds for the last crash.
    ledgers = [Ledger(lambda: 0) for _ in range(CLIENTS)]
    with VolatileServer(disk, seed) as nbd, serving(folder, way.startswith("proxy")) as server:
        clients = []
        for number, ledger in enumerate(ledgers):
            ticket = f"disk{number}"
            server.add(ticket, lambda: NBDBackend(nbd.url, writable=True), ops=["write"], size=len(disk.data))
            mine = random.Random(dice.random())
            clients.append(HttpClient(server.path, ticket, number * MANY_SECTORS, MANY_SECTORS, ledger, mine))
        for _ in range(failures):
            run_all([lambda client=client: client.run(steps) for client in clients], dice, nbd)
        for client in clients:
            # The first one may tell of writes that are lost.
            client.flush()
            client.put(flush=True)
            client.close()
        nbd.power_failure(dice)
    sectors = sum(ledger.check(0, bytes(disk.data)) for ledger in ledgers)
    return Result(1, sectors, sum(ledger.flushes for ledger in ledgers))


def crash_file(folder: Path, seed: int, steps: int = 20, subsets: int = 2) -> Result:
    """Let clients, and users of the directio module, change a file; then crash at each point. Raises Lost."""
    dice = random.Random(seed)
    disk = VolatileDisk(CLIENTS * SECTORS * SECTOR)
    path = folder / "disk"
    path.write_bytes(bytes(disk.data))
    ledgers = [Ledger(disk.note) for _ in range(CLIENTS)]
    with serving(folder, False) as server, logging_file(str(path), disk):
        server.add("disk", lambda: FileBackend(str(path), writable=True), ops=["write"], size=len(disk.data))
        calls = []
        for number, ledger in enumerate(ledgers):
            mine = random.Random(dice.random())
            if number % 2:
                client = HttpClient(server.path, "disk", number * SECTORS, SECTORS, ledger, mine)
                calls.append(functools.partial(use, client, steps))
            else:
                calls.append(functools.partial(use_directio, str(path), number * SECTORS, ledger, mine, steps))
        run_all(calls)
    assert path.read_bytes() == bytes(disk.data), "the log is not what happened"
    return check(disk, ledgers, dice, subsets)


def use(client: HttpClient, steps: int) -> None:
    """Let a client work, and leave."""
    with contextlib.closing(client):
        client.run(steps)
    assert not client.failures, "nothing was broken, and a request failed"


def use_directio(path: str, first: int, ledger: Ledger, dice: random.Random, steps: int) -> None:
    """Change a file as vdsm does."""
    for _ in range(steps):
        start = first + dice.randrange(SECTORS)
        count = dice.randint(1, min(MOST, first + SECTORS - start))
        flush = dice.random() < 0.5
        size, offset = count * SECTOR, start * SECTOR
        if dice.random() < 0.5:
            write = ledger.begin(start, stamped(count))
            directio.Receive(path, io.BytesIO(write.data), size, offset, flush).run()
        else:
            write = ledger.begin(start, bytes(size))
            directio.Zero(path, size, offset, flush, sparse=dice.random() < 0.5).run()
        if flush:
            ledger.flushed([write])


def check(disk: VolatileDisk, ledgers: list[Ledger], dice: random.Random, subsets: int) -> Result:
    """Rebuild the disk for a crash at each point, and look at it."""
    disks = sectors = 0
    for point in range(len(disk.log) + 1):
        for _ in range(subsets):
            left = disk.after_crash(point, dice)
            sectors += sum(ledger.check(point, left) for ledger in ledgers)
            disks += 1
    return Result(disks, sectors, sum(ledger.flushes for ledger in ledgers))


def kind_of(way: str, number: int) -> type[Any]:
    """Return what a client speaks."""
    if way.endswith("upgrade"):
        return NbdClient
    return NbdClient if way == "both" and number % 2 else HttpClient


@contextlib.contextmanager
def serving(folder: Path, is_proxy: bool) -> Iterator[Any]:
    """Run a server; through a proxy, if it says so."""
    with (ProxyServer if is_proxy else ImageServer)(folder) as server:
        yield server


def run_all(calls: list[Any], dice: random.Random | None = None, nbd: VolatileServer | None = None) -> None:
    """Make calls at the same time, perhaps while the power of the NBD server fails; raise what one of them raises."""
    errors: list[BaseException] = []

    def run(call: Any) -> None:
        try:
            call()
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    if nbd is not None and dice is not None:
        before = nbd.disk.note()
        wanted = before + dice.randrange(60)
        while nbd.disk.note() < wanted and any(thread.is_alive() for thread in threads):
            threads[0].join(0.001)
        nbd.power_failure(dice)
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
