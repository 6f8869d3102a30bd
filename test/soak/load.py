"""Many clients at once: load.py [--seconds N] [--connections N]

    storm     connections over TLS and the Unix socket write, zero and read ranges of their own, each byte compared,
              while certificates are read again; afterwards the daemon has descriptors, threads and memory of before
    short     connections of one request each, to many tickets

Everything is on loopback, and ends by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable

from fakes.waiting import DEADLINE, wait_until
from real import daemon as real_daemon
from real.daemon import Daemon

KIB = 1024
MIB = 1024 * KIB

# What one connection of the storm has for itself.
REGION = 256 * KIB
PER_DISK = 25

# Clients of the other parts.
SHORT_CLIENTS = 8
WRITERS = 8

# A daemon that ended. One object serves all blocks: it keeps nothing.
GONE = contextlib.suppress(OSError, http.client.HTTPException)

# How much more memory the daemon may have after a second storm.
MEMORY_SLACK = 64 * MIB


def main(arguments: list[str]) -> int:
    """Run all parts; return an exit status."""
    parser = argparse.ArgumentParser(prog="load")
    parser.add_argument("--seconds", type=float, default=120, help="of the storm")
    parser.add_argument("--connections", type=int, default=500, help="of the storm, at once")
    parser.add_argument("--short", type=int, default=10000, help="connections of one request each")
    parser.add_argument("--tickets", type=int, default=1000, help="for those")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="load-") as name:
        folder = Path(name)
        with real_daemon.running(folder / "daemon") as daemon:
            # The first one is for the allocator: it keeps what many threads needed at once, and uses it again.
            faults = storm(daemon, folder / "first", options.connections, options.seconds / 4, dice, 2**63)
            faults += storm(daemon, folder / "second", options.connections, options.seconds, dice, MEMORY_SLACK)
            faults += short(daemon, folder, options.short, options.tickets, dice)
            # It still runs: stopped under load it ends by itself.
            faults += end_under_load(daemon, folder)
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


# --- Storm -----------------------------------------------------------------------------------------------------------


class Level:
    """What a process holds: descriptors, threads and memory."""

    def __init__(self, pid: int) -> None:
        self.descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        self.threads = int(status["Threads"])
        self.memory = int(status["VmRSS"].split()[0]) * KIB

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.threads} threads, {self.memory // MIB} MiB"


class Client:
    """One connection, and the range that only it writes."""

    def __init__(self, daemon: Daemon, path: str, offset: int, dice: random.Random, is_local: bool) -> None:
        self._connect = (lambda: daemon.connect_unix(daemon.local_socket)) if is_local else daemon.connect
        self._path = path
        self._offset = offset
        self._dice = dice
        self._data = bytearray(REGION)
        self.moved = 0
        self.requests = 0
        self.fault = ""

    def run(self, deadline: float) -> None:
        """Write, zero and read until the deadline."""
        try:
            with contextlib.closing(self._connect()) as connection:
                while time.monotonic() < deadline:
                    self._step(connection)
        except Exception as error:
            self.fault = f"{self._path.rpartition('/')[0]} at {self._offset}: {error!r}"

    def _step(self, connection: http.client.HTTPConnection) -> None:
        start = self._dice.randrange(REGION)
        length = min(self._dice.choice([512, 4 * KIB, 64 * KIB, REGION]), REGION - start)
        first, last = self._offset + start, self._offset + start + length - 1
        kind = self._dice.choice(["read", "read", "write", "zero"])
        if kind == "read":
            connection.request("GET", self._path, headers={"Range": f"bytes={first}-{last}"})
            expected = 206
        elif kind == "write":
            body = self._dice.randbytes(length)
            self._data[start : start + length] = body
            headers = {"Content-Range": f"bytes {first}-{last}/*"}
            connection.request("PUT", f"{self._path}?flush=n", body, headers)
            expected = 200
        else:
            self._data[start : start + length] = bytes(length)
            connection.request("PATCH", self._path, json.dumps({"op": "zero", "offset": first, "size": length}))
            expected = 200
        response = connection.getresponse()
        body = response.read()
        if response.status != expected:
            raise ValueError(f"{kind} was answered with {response.status}: {body[:100]!r}")
        if kind == "read" and body != self._data[start : start + length]:
            raise ValueError(f"{length} bytes at {first} are not what was written")
        self.moved += length
        self.requests += 1


def storm(daemon: Daemon, folder: Path, connections: int, seconds: float, dice: random.Random, slack: int) -> list[str]:
    """Let many connections work at once; the daemon may then have `slack` more bytes of memory."""
    folder.mkdir()
    paths = []
    for number in range(-(-connections // PER_DISK)):
        disk = folder / f"disk-{number}"
        disk.write_bytes(bytes(PER_DISK * REGION))
        url = daemon.add_ticket(url=f"file://{disk}", size=PER_DISK * REGION)
        paths.append(path_of(daemon, url))
    before = Level(daemon.process.pid)
    clients = [
        Client(daemon, paths[i // PER_DISK], i % PER_DISK * REGION, random.Random(dice.random()), bool(i % 2))
        for i in range(connections)
    ]
    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=client.run, args=(deadline,)) for client in clients]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        # Certificates and the level of the log are read again meanwhile.
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(1)
    peak = Level(daemon.process.pid)
    faults = [client.fault for client in clients if client.fault]
    requests, moved = sum(client.requests for client in clients), sum(client.moved for client in clients)
    print(f"storm: {connections} connections, {requests} requests, {moved / 1e9:.2f} GB, {len(faults)} faults")

    faults += level_faults(daemon, before)
    after = Level(daemon.process.pid)
    if after.memory > before.memory + slack:
        faults.append(f"The daemon keeps {after}, {before} before")
    print(f"storm: {before} before, {peak} at the end, {after} afterwards", flush=True)
    return faults


def level_faults(daemon: Daemon, before: Level) -> list[str]:
    """Return what the daemon still holds of its clients."""

    def is_back() -> bool:
        now = Level(daemon.process.pid)
        return now.descriptors <= before.descriptors and now.threads <= before.threads

    try:
        wait_until(is_back)
    except AssertionError:
        return [f"The daemon holds {Level(daemon.process.pid)}, {before} before"]
    return []


def path_of(daemon: Daemon, url: str) -> str:
    """Return the path of a transfer URL."""
    return url.partition(f":{daemon.port}")[2]


# --- Short connections -----------------------------------------------------------------------------------------------


def together(count: int, work: Callable[[int], None]) -> list[str]:
    """Call `work` with the number of each of these threads; return what failed."""
    faults: list[str] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as error:
            faults.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


def short(daemon: Daemon, folder: Path, count: int, tickets: int, dice: random.Random) -> list[str]:
    """Ask many tickets, over a new connection each time."""
    disk = folder / "short"
    disk.write_bytes(dice.randbytes(MIB))
    data = disk.read_bytes()
    urls = [daemon.add_ticket(url=f"file://{disk}", size=MIB, ops=["read"]) for _ in range(tickets)]
    paths = [path_of(daemon, url) for url in urls]

    def ask(number: int) -> None:
        own = random.Random(number)
        for turn in range(count // SHORT_CLIENTS):
            offset = own.randrange(MIB - 4 * KIB)
            connect = daemon.connect if turn % 2 else lambda: daemon.connect_unix(daemon.local_socket)
            with contextlib.closing(connect()) as connection:
                headers = {"Range": f"bytes={offset}-{offset + 4 * KIB - 1}"}
                connection.request("GET", own.choice(paths), headers=headers)
                if connection.getresponse().read() != data[offset : offset + 4 * KIB]:
                    raise ValueError(f"4 KiB at {offset} are not what is there")

    faults = together(SHORT_CLIENTS, ask)
    status, body = daemon.control("GET", "/tickets")
    if status != 200 or len(json.loads(body)) < tickets:
        faults.append(f"The daemon lists fewer than {tickets} tickets")
    print(f"short: {count} connections to {tickets} tickets, {len(faults)} faults", flush=True)
    return faults


def end_under_load(daemon: Daemon, folder: Path) -> list[str]:
    """Stop the daemon while clients write: it ends by itself, and well."""
    disk = folder / "end"
    disk.write_bytes(bytes(WRITERS * MIB))
    url = daemon.add_ticket(url=f"file://{disk}", size=WRITERS * MIB)
    path = path_of(daemon, url)

    def write(number: int) -> None:
        with GONE, contextlib.closing(daemon.connect_unix(daemon.local_socket)) as connection:
            while True:
                headers = {"Content-Range": f"bytes {number * MIB}-{(number + 1) * MIB - 1}/*"}
                connection.request("PUT", path, bytes(MIB), headers)
                connection.getresponse().read()

    def end(number: int) -> None:
        time.sleep(0.5)
        daemon.process.send_signal(signal.SIGTERM)
        status = daemon.process.wait(DEADLINE)
        if status != 0:
            raise ValueError(f"The daemon ended with {status}")

    return together(WRITERS + 1, lambda number: end(number) if number == WRITERS else write(number))
