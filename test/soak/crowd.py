"""Two thousand slow connections at once, and a client that wants something: crowd.py [--connections N] [--seconds N]

    handshake   a byte of a TLS handshake now and then
    head        a byte of the head of a request, over TLS
    upload      a byte of a body, with a ticket
    download    nothing is read of an answer, with a ticket

They come from many addresses, so that no limit for one of them keeps them out, are more than the daemon takes, and come
back when they are cut. Meanwhile a good client downloads a disk, over a new connection each time: what it is told at
worst is 503 with Retry-After. Afterwards the daemon has the descriptors and threads of before.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import random
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Optional

from fakes.waiting import DEADLINE
from real import daemon as real_daemon
from real.daemon import Daemon
from soak.load import MIB, Level, level_faults, path_of

# The host is an address, so that clients may have others.
CONFIG = "[remote]\nhost = 127.0.0.1\n"
ADDRESSES = 40

# How long a slow client waits between two bytes. Less than the time-outs for a whole handshake and a whole head.
PAUSE_SECONDS = 2

DOWNLOAD = 64 * MIB
GOOD_SIZE = MIB

# What a slow client does, and how many of a hundred do so: with a ticket only as many as a ticket takes.
KINDS = ["handshake"] * 45 + ["head"] * 45 + ["upload"] * 5 + ["download"] * 5
TLS_RECORD = b"\x16\x03\x01\x02\x00"


def main(arguments: list[str]) -> int:
    """Let them come; return an exit status."""
    parser = argparse.ArgumentParser(prog="crowd")
    parser.add_argument("--connections", type=int, default=2000, help="slow ones, at once")
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="crowd-") as name:
        folder = Path(name)
        with real_daemon.running(folder / "daemon", CONFIG) as daemon:
            faults = crowd(daemon, folder, options.connections, options.seconds)
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


def crowd(daemon: Daemon, folder: Path, count: int, seconds: float) -> list[str]:
    """Let slow clients keep the daemon busy; return what is wrong."""
    disk, slow_disk = folder / "disk", folder / "slow"
    disk.write_bytes(random.randbytes(GOOD_SIZE))
    slow_disk.write_bytes(bytes(DOWNLOAD))
    good = Good(daemon, disk)
    good.ask()
    path = path_of(daemon, daemon.add_ticket(url=f"file://{slow_disk}", size=DOWNLOAD))
    before = Level(daemon.process.pid)
    slow = Slow(daemon, path, count)
    threads = [threading.Thread(target=target, args=(time.monotonic() + seconds,)) for target in (slow.run, good.run)]
    for thread in threads:
        thread.start()
    peak = before
    while any(thread.is_alive() for thread in threads):
        time.sleep(1)
        peak = max(peak, Level(daemon.process.pid), key=lambda level: level.threads)
    for thread in threads:
        thread.join()
    print(f"{count} slow connections, {slow.opened} one after the other: {dict(slow.counts)}")
    print(
        f"the good client: {dict(good.counts)}, median {statistics.median(good.times):.2f} s, {max(good.times):.2f} s"
    )
    print(f"{before} before, {peak} amid that, {Level(daemon.process.pid)} at the end", flush=True)
    return good.faults + level_faults(daemon, before)


class Good:
    """Downloads a disk again and again, over a connection of its own each time."""

    def __init__(self, daemon: Daemon, disk: Path) -> None:
        self._daemon = daemon
        self._data = disk.read_bytes()
        self._path = path_of(daemon, daemon.add_ticket(url=f"file://{disk}", size=len(self._data), ops=["read"]))
        self.counts: Counter[int] = Counter()
        self.times: list[float] = []
        self.faults: list[str] = []

    def run(self, deadline: float) -> None:
        """Do so until the deadline."""
        while time.monotonic() < deadline and not self.faults:
            try:
                self.ask()
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.faults.append(f"the good client: {error!r}")
            time.sleep(0.1)
        if self.counts[503] > self.counts[200]:
            self.faults.append("The good client was refused more often than it was served")

    def ask(self) -> None:
        """Download it once."""
        begin = time.monotonic()
        with contextlib.closing(self._daemon.connect()) as connection:
            connection.request("GET", self._path)
            response = connection.getresponse()
            body = response.read()
        self.counts[response.status] += 1
        self.times.append(time.monotonic() - begin)
        if response.status == 503 and response.getheader("Retry-After"):
            return
        if response.status != 200 or body != self._data:
            raise ValueError(f"{response.status}: {body[:100]!r}")


class Slow:
    """Many connections that are slow, all served by one thread."""

    def __init__(self, daemon: Daemon, path: str, count: int) -> None:
        self._port = daemon.port
        self._path = path
        self._count = count
        self._tls = ssl.create_default_context(cafile=daemon.ca_file)
        self.opened = 0
        self.counts: Counter[str] = Counter()

    def run(self, deadline: float) -> None:
        """Keep so many connections open until the deadline."""
        with contextlib.ExitStack() as scope:
            connections: dict[int, Connection] = {}
            scope.callback(lambda: [connection.close() for connection in connections.values()])
            while time.monotonic() < deadline:
                turn = time.monotonic() + PAUSE_SECONDS
                for number in range(self._count):
                    if number not in connections:
                        connections[number] = self._open(number)
                    elif not connections[number].go_on():
                        connections.pop(number).close()
                        self.counts["cut"] += 1
                time.sleep(max(0, turn - time.monotonic()))

    def _open(self, number: int) -> Connection:
        self.opened += 1
        kind = KINDS[number % len(KINDS)]
        self.counts[kind] += 1
        return Connection(kind, f"127.0.1.{1 + number % ADDRESSES}", self._port, self._tls, self._path)


class Connection:
    """One slow connection."""

    def __init__(self, kind: str, address: str, port: int, tls: ssl.SSLContext, path: str) -> None:
        self._kind = kind
        self._sock: Optional[socket.socket] = None
        try:
            sock = socket.create_connection(("127.0.0.1", port), DEADLINE, (address, 0))
            self._sock = sock
            if kind != "handshake":
                self._sock = tls.wrap_socket(sock, server_hostname="localhost")
            self._sock.sendall(self._first(path))
            self._sock.settimeout(0)
        except OSError:
            self.close()

    def _first(self, path: str) -> bytes:
        if self._kind == "handshake":
            return TLS_RECORD
        if self._kind == "head":
            return b"GET /images/"
        if self._kind == "download":
            return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        return f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n".encode()

    def go_on(self) -> bool:
        """Send a byte more; return False if the daemon has had enough."""
        if self._sock is None:
            return False
        try:
            if self._kind != "download":
                self._sock.send(b"x")
            elif self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return False
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close it, if it is open."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
