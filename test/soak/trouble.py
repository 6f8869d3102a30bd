"""Many clients while something else goes wrong: trouble.py [--seconds N] [--clients N] [NAME...]

    slow          each read and write of the storage takes 20 ms more
    errors        one call of the storage in ten fails
    full          the file system of the disk fills up, and is given space back, again and again
    certificate   the certificate and its key are replaced, one after the other, and read again

A client has blocks of its own, over TLS or the Unix socket, and knows what each of them may hold: what was acknowledged
last, or what an attempt that failed may have left. Another disk is served all the time. Afterwards the daemon has the
descriptors and threads of before, and ends with status 0 when it is told to amid all that.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import shutil
import signal
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from real import certificates, loop
from real import daemon as real_daemon
from real.daemon import Daemon
from real.nbd import nbdkit
from soak.load import KIB, MIB, Level, level_faults, path_of

BLOCK = 4 * KIB
BLOCKS = 64
WORD = 4
LONGEST = 16

DELAY = "20ms"
ERROR_RATE = "10%"

# How many requests a client sends over one connection.
REQUESTS = 20

# The answers to a client whose storage fails; 507 if it is full.
STORAGE_FAILED = {500, 503, 504, 507}


@dataclass
class Scene:
    """What clients have to do with: a disk, and the statuses that tell of the trouble."""

    url: str
    troubles: frozenset[int] = frozenset()
    # Makes trouble, each second.
    stir: Callable[[Daemon], None] = lambda daemon: None


def main(arguments: list[str]) -> int:
    """Play all scenes; return an exit status."""
    parser = argparse.ArgumentParser(prog="trouble")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENES))
    parser.add_argument("--seconds", type=float, default=60, help="of each")
    parser.add_argument("--clients", type=int, default=64, help="at once")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(SCENES)
    if unknown:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")
    print(f"seed {options.seed}", flush=True)
    faults = []
    for name in options.names or SCENES:
        with tempfile.TemporaryDirectory(prefix=f"trouble-{name}-", dir="/var/tmp") as folder:
            found = play(name, Path(folder), options.clients, options.seconds, random.Random(options.seed))
        faults += [f"{name}: {fault}" for fault in found]
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    print(f"{len(faults)} faults")
    return 1 if faults else 0


def play(name: str, folder: Path, count: int, seconds: float, dice: random.Random) -> list[str]:
    """Let clients work amid some trouble; return what is wrong."""
    size = count * BLOCKS * BLOCK
    with SCENES[name](folder, size) as scene, running(folder / "daemon") as daemon:
        path = path_of(daemon, daemon.add_ticket(url=scene.url, size=size, sparse=True))
        other = folder / "other"
        other.write_bytes(dice.randbytes(MIB))
        good = Bystander(daemon, other)
        good.ask()
        before = Level(daemon.process.pid)
        clients = [Client(daemon, path, i, random.Random(dice.random()), scene.troubles) for i in range(count)]
        with working([*clients, good]):
            for _ in range(int(seconds)):
                time.sleep(1)
                scene.stir(daemon)
        faults = [fault for each in (*clients, good) for fault in each.faults]
        faults += level_faults(daemon, before)
        counts = sum((client.counts for client in clients), Counter[str]())
        told = ", ".join(f"{number} {what}" for what, number in counts.most_common())
        print(f"{name}: {told}; {good.served} times another disk, {len(good.certificates)} certificates", flush=True)
        faults += [f"No answer was {status}" for status in scene.troubles & {500, 507} if not counts[str(status)]]
        if name == "certificate" and len(good.certificates) < 2:
            faults.append("Clients saw one certificate only")
        # What they hear from now on is not looked at.
        with working([*clients, good]):
            time.sleep(0.5)
            status = daemon.stop()
        return [*faults, *([f"The daemon ended with {status}"] if status else [])]


# --- Clients ---------------------------------------------------------------------------------------------------------


class Client:
    """Writes, zeroes and reads blocks that only it uses, over one connection after the other."""

    def __init__(self, daemon: Daemon, path: str, number: int, dice: random.Random, troubles: frozenset[int]) -> None:
        self._connect = daemon.connect if number % 2 else lambda: daemon.connect_unix(daemon.local_socket)
        self._path = path
        self._first = number * BLOCKS
        self._dice = dice
        self._troubles = troubles
        # Of each block: the numbers of which its words may be.
        self._may: list[set[int]] = [{0} for _ in range(BLOCKS)]
        self._turn = 0
        self.is_over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self) -> None:
        """Work until it is over."""
        while not self.is_over.is_set():
            try:
                with contextlib.closing(self._connect()) as connection:
                    for _ in range(REQUESTS):
                        if not self.is_over.is_set():
                            self._act(connection)
            except (OSError, http.client.HTTPException) as error:
                self.counts["cut"] += 1
                if not self._troubles:
                    self.faults.append(repr(error))
                    return
            except ValueError as error:
                self.faults.append(str(error))
                return

    def _act(self, connection: http.client.HTTPConnection) -> None:
        first = self._dice.randrange(BLOCKS)
        count = min(self._dice.randint(1, LONGEST), BLOCKS - first)
        kind = self._dice.choice(["read", "write", "write", "zero"])
        blocks = range(first, first + count)
        start, length = (self._first + first) * BLOCK, count * BLOCK
        if kind == "read":
            headers = {"Range": f"bytes={start}-{start + length - 1}"}
            status, body = self._ask(connection, "GET", None, headers)
            if status == 206:
                self._check(blocks, body)
            return
        self._turn += kind == "write"
        value = self._turn if kind == "write" else 0
        # Whatever happens to the request, they may have it from now on.
        for block in blocks:
            self._may[block].add(value)
        if kind == "write":
            headers = {"Content-Range": f"bytes {start}-{start + length - 1}/*"}
            body = value.to_bytes(WORD, "big") * (length // WORD)
            status, _ = self._ask(connection, "PUT", body, headers)
        else:
            document = json.dumps({"op": "zero", "offset": start, "size": length, "flush": True})
            status, _ = self._ask(connection, "PATCH", document.encode(), {})
        if status == 200:
            for block in blocks:
                self._may[block] = {value}

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, body: Optional[bytes], headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection.request(method, self._path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status not in {200, 206, *self._troubles}:
            raise ValueError(f"{method} was answered with {response.status}: {answer[:100]!r}")
        self.counts[str(response.status)] += 1
        return response.status, answer

    def _check(self, blocks: range, body: bytes) -> None:
        for number, block in enumerate(blocks):
            data = body[number * BLOCK : (number + 1) * BLOCK]
            found = {int.from_bytes(data[i : i + WORD], "big") for i in range(0, BLOCK, WORD)}
            if not found <= self._may[block]:
                raise ValueError(f"Block {self._first + block} has {found}, not {self._may[block]}")


class Bystander:
    """Reads a disk that is well."""

    def __init__(self, daemon: Daemon, disk: Path) -> None:
        self._daemon = daemon
        self._data = disk.read_bytes()
        self._path = path_of(daemon, daemon.add_ticket(url=f"file://{disk}", size=len(self._data), ops=["read"]))
        self.is_over = threading.Event()
        self.served = 0
        self.certificates: set[Optional[bytes]] = set()
        self.faults: list[str] = []

    def run(self) -> None:
        """Read until it is over."""
        try:
            while not self.is_over.wait(0.1):
                self.ask()
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.faults.append(f"another disk: {error!r}")

    def ask(self) -> None:
        """Read all of it, over a connection of its own."""
        with contextlib.closing(self._daemon.connect()) as connection:
            connection.request("GET", self._path)
            assert isinstance(connection.sock, ssl.SSLSocket)
            self.certificates.add(connection.sock.getpeercert(binary_form=True))
            if connection.getresponse().read() != self._data:
                raise ValueError("it is not what was written")
        self.served += 1


@contextlib.contextmanager
def working(clients: list[Client | Bystander]) -> Iterator[None]:
    """Let clients work within the block."""
    for client in clients:
        client.is_over.clear()
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for client in clients:
            client.is_over.set()
        for thread in threads:
            thread.join()


# --- Scenes ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Daemon]:
    """Run a daemon whose certificate and key are files of its own."""
    folder.mkdir()
    tls = certificates.certificate()
    files = {name: str(folder / f"{name}.pem") for name in ("cert", "key")}
    shutil.copy(tls.cert_file, files["cert"])
    shutil.copy(tls.key_file, files["key"])
    text = f"[tls]\ncert_file = {files['cert']}\nkey_file = {files['key']}\n"
    with real_daemon.running(folder, text) as daemon:
        yield daemon


@contextlib.contextmanager
def slow(folder: Path, size: int) -> Iterator[Scene]:
    """A disk that takes its time."""
    with nbdkit("--filter=delay", "memory", str(size), f"rdelay={DELAY}", f"wdelay={DELAY}") as path:
        yield Scene(f"nbd:unix:{path}")


@contextlib.contextmanager
def failing(folder: Path, size: int) -> Iterator[Scene]:
    """A disk that fails now and then."""
    arguments = ("--filter=error", "memory", str(size), "error=EIO", f"error-rate={ERROR_RATE}")
    with nbdkit(*arguments) as path:
        yield Scene(f"nbd:unix:{path}", frozenset(STORAGE_FAILED - {507}))


@contextlib.contextmanager
def full(folder: Path, size: int) -> Iterator[Scene]:
    """A sparse disk on a file system that is smaller; zeroing gives space back."""
    # Clients write more than that: two writes for each time that they zero.
    with loop.mounted(folder, "ext4", size // 2) as mount:
        disk = mount / "disk"
        with open(disk, "wb") as file:
            file.truncate(size)
        yield Scene(f"file://{disk}", frozenset({507}))


@contextlib.contextmanager
def certificate(folder: Path, size: int) -> Iterator[Scene]:
    """Certificates that change under the daemon; between its two files they do not fit together."""
    disk = folder / "disk"
    with open(disk, "wb") as file:
        file.truncate(size)
    names = ["first", "second"]

    def stir(daemon: Daemon) -> None:
        names.reverse()
        one = certificates.certificate(names[0])
        for source, name in ((one.cert_file, "cert.pem"), (one.key_file, "key.pem")):
            shutil.copy(source, daemon.folder / "new")
            (daemon.folder / "new").rename(daemon.folder / name)
            daemon.process.send_signal(signal.SIGHUP)

    yield Scene(f"file://{disk}", stir=stir)


SCENES = {"slow": slow, "errors": failing, "full": full, "certificate": certificate}
