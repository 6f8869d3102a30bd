"""The data path: 1 GiB down and up, from each kind of storage, over each kind of connection, one and four at once.

The names tell what is measured: get-nbd-memory-https-4 is a download from qemu-nbd on a memory disk, over HTTPS, in
four ranges over four connections. The client is client.py, which costs less than anything that stores what it gets;
where the name says so it is curl, which takes what comes in smaller steps.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, Union

from bench.arena import GIB, MIB, SIZE, arena
from bench.lines import SERVER, Line, Side, Times
from bench.peers import Nginx, dd, need, timed
from real.nbd import uri

from ovirt_imageio.qemu.nbd import QemuNbd

__all__ = ["LINES", "transfer"]

CLIENT = Path(__file__).with_name("client.py")
# More clients than this are threads of the same processes: the client must not be most of the work.
CLIENTS = 4

STORAGES = ("nbd-memory", "file-memory", "file-disk")
TRANSFERS = 10


def transfer(jobs: Sequence[dict[str, Any]]) -> float:
    """Run all jobs at once, in a few processes; return the seconds, without those of connecting."""
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(min(len(jobs), CLIENTS)):
            command = [sys.executable, "-I", str(CLIENT), json.dumps(jobs[number::CLIENTS])]
            client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            clients.append(stack.enter_context(client))
        for client in clients:
            assert client.stdout.readline() == b"ready\n"
        started = time.perf_counter()
        for client in clients:
            client.stdin.write(b"go\n")
            client.stdin.flush()
        for client in clients:
            if client.stdout.readline() != b"done\n":
                raise RuntimeError(f"A client failed with {client.wait()}")
        return time.perf_counter() - started


class Transfer:
    """One way to one daemon: transfers on a disk, over some connections."""

    def __init__(
        self, kind: str, method: str, disk: str, via: str, *, connections: int = 1, transfers: int = 1
    ) -> None:
        self._kind = kind
        self._method = method
        self._disk = disk
        self._via = via
        self._connections = connections
        self._transfers = transfers
        self._jobs: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Add the tickets, and share the disk among the connections."""
        daemon = arena.daemon(self._kind)
        address = f"{daemon.folder}/local.sock" if self._via == "unix" else ["localhost", daemon.port]
        tickets = [arena.add_ticket(self._kind, self._disk) for _ in range(self._transfers)]
        size = share(self._connections, self._transfers)
        self._jobs = [
            {"address": address, "ca_file": daemon.ca_file, **self._request(ticket, number * size, size)}
            for ticket in tickets
            for number in range(self._connections)
        ]
        yield

    def _request(self, ticket: str, start: int, size: int) -> dict[str, Any]:
        head = f"{self._method} /images/{ticket} HTTP/1.1\r\nHost: localhost\r\n"
        end = start + size - 1
        if self._method == "GET":
            return {"head": f"{head}Range: bytes={start}-{end}\r\n\r\n", "download": size}
        head += f"Content-Range: bytes {start}-{end}/*\r\nContent-Length: {size}\r\n\r\n"
        return {"head": head, "upload": size}

    def run(self) -> float:
        """Return MiB/s."""
        moved = sum(job.get("download", 0) + job.get("upload", 0) for job in self._jobs)
        return moved / MIB / transfer(self._jobs)

    def processes(self) -> dict[str, int]:
        """Return the servers behind it."""
        return arena.processes(self._kind, self._disk)


def share(connections: int, transfers: int) -> int:
    """Return the size of what each connection moves: all transfers together move as much as one alone."""
    return SIZE // transfers // connections // MIB * MIB


class Curl:
    """curl, which moves the whole disk of one daemon over HTTPS."""

    def __init__(self, kind: str, method: str, disk: str) -> None:
        self._kind = kind
        self._method = method
        self._disk = disk
        self._command: list[str] = []

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Add the ticket. Raises Missing."""
        daemon = arena.daemon(self._kind)
        url = daemon.url(arena.add_ticket(self._kind, self._disk))
        self._command = curl(url, daemon.ca_file)
        if self._method == "PUT":
            self._command += ["-T", str(arena.disk("file-memory").path)]
        yield

    def run(self) -> float:
        """Return MiB/s."""
        return SIZE / MIB / timed(*self._command)

    def processes(self) -> dict[str, int]:
        """Return the servers behind it."""
        return arena.processes(self._kind, self._disk)


def curl(url: str, ca_file: str) -> list[str]:
    """Return the command that downloads. Raises Missing."""
    return [need("curl"), "-sSf", "--cacert", ca_file, url]


def rate(run: Callable[[], float]) -> Callable[[], float]:
    """Return what tells MiB/s of what tells the seconds for the whole disk."""
    return lambda: SIZE / MIB / run()


def nbdcopy(method: str) -> Side:
    """Return nbdcopy on the disk, one leg less than ours."""

    def server() -> QemuNbd:
        server = arena.disk("nbd-memory", "nbdcopy").server
        assert server is not None
        return server

    @contextlib.contextmanager
    def setup() -> Iterator[None]:
        need("nbdcopy")
        server()
        yield

    def run() -> float:
        source = uri(server().url.partition("unix:")[2])
        pair = (source, "null:") if method == "GET" else ("--flush", arena.disk("file-memory").path, source)
        return timed("nbdcopy", "--connections=1", *pair)

    return Side("nbdcopy", rate(run), setup, lambda: {"qemu-nbd": server().pid})


def direct_dd(method: str) -> Side:
    """Return dd with direct I/O on the disk: what the storage gives to one that asks for a MiB at a time."""

    def run() -> float:
        path = arena.disk("file-disk").path
        if method == "GET":
            return dd(SIZE, f"if={path}", "of=/dev/null", "iflag=direct")
        source = arena.disk("file-memory").path
        return dd(SIZE, f"if={source}", f"of={path}", "oflag=direct", "conv=notrunc,fsync")

    return Side("dd", rate(run))


def nginx(is_curl: bool = False) -> Side:
    """Return nginx with the disk as a static file."""
    server = Nginx()

    def run() -> float:
        if is_curl:
            url = f"https://localhost:{server.port}/{arena.disk('file-memory').path.name}"
            return timed(*curl(url, server.ca_file))
        head = f"GET /{arena.disk('file-memory').path.name} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        job = {"address": ["localhost", server.port], "ca_file": server.ca_file, "head": head, "download": SIZE}
        return transfer([job])

    def setup() -> contextlib.AbstractContextManager[None]:
        return server.running(arena.disk("file-memory").path.parent)

    return Side("nginx", rate(run), setup, lambda: {SERVER: server.pid})


# Of the daemon over HTTPS, without the help of the kernel.
CHEAPER = Times(0.75, cpu_of=SERVER)
LIKE_NGINX = Times(1.1, "nginx", cpu_of=SERVER)

# What a line should reach, and who else is measured beside the release.
TARGETS = {
    "get-nbd-memory-unix-1": (Times(3.5), Times(1.2, "nbdcopy"), Times(0.4, cpu_of="daemon")),
    "put-nbd-memory-unix-1": (Times(2),),
    "get-nbd-memory-https-1": (CHEAPER, LIKE_NGINX, Times(1.7), Times(1, "nginx")),
    "put-nbd-memory-https-1": (CHEAPER, Times(2.1)),
    "get-nbd-memory-https-curl": (CHEAPER, LIKE_NGINX),
    "put-nbd-memory-https-curl": (CHEAPER,),
    "get-file-memory-https-curl": (LIKE_NGINX,),
    "get-file-memory-https-1": (LIKE_NGINX,),
    "get-nbd-memory-https-4": (Times(1.3),),
    "put-nbd-memory-https-4": (Times(1.3),),
    "put-file-disk-unix-1": (Times(1.6), Times(0.85, "dd")),
    "get-file-disk-unix-1": (Times(1.6),),
    "get-file-memory-unix-1": (Times(1), Times(0.6, cpu_of="daemon")),
}
OTHERS = {
    "get-nbd-memory-unix-1": lambda: nbdcopy("GET"),
    "put-nbd-memory-unix-1": lambda: nbdcopy("PUT"),
    "get-nbd-memory-https-1": nginx,
    "get-nbd-memory-https-curl": lambda: nginx(is_curl=True),
    "get-file-memory-https-1": nginx,
    "get-file-memory-https-curl": lambda: nginx(is_curl=True),
    "get-file-disk-unix-1": lambda: direct_dd("GET"),
    "put-file-disk-unix-1": lambda: direct_dd("PUT"),
}


def both(make: Callable[..., Union[Transfer, Curl]], *arguments: Any, **options: Any) -> list[Side]:
    """Return our side and that of the release."""
    paths = [(kind, make(kind, *arguments, **options)) for kind in ("ours", "release")]
    return [Side(kind, path.run, path.setup, path.processes) for kind, path in paths]


def line(method: str, storage: str, via: str, connections: int) -> Line:
    """Return one line of the matrix."""
    sides = both(Transfer, method, storage, via, connections=connections)
    return whole(f"{method.lower()}-{storage}-{via}-{connections}", method, storage, via, sides)


def with_curl(method: str, storage: str) -> Line:
    """Return a line whose client is curl."""
    sides = both(Curl, method, storage)
    return whole(f"{method.lower()}-{storage}-https-curl", method, storage, "https", sides)


def whole(name: str, method: str, storage: str, via: str, sides: list[Side]) -> Line:
    """Return the line of this name, which moves a whole disk."""
    if name in OTHERS:
        sides.append(OTHERS[name]())
    verb = "download" if method == "GET" else "upload"
    where = "the Unix socket" if via == "unix" else "HTTPS"
    about = f"{verb} 1 GiB, {storage.replace('-', ' in ' if 'memory' in storage else ' on ')}, over {where}"
    targets = TARGETS.get(name, ())
    rounds = 5 if targets else 3
    return Line(name, "MiB/s", sides, about=about, targets=targets, rounds=rounds, warmups=1, gib=SIZE / GIB)


def many(method: str) -> Line:
    """Return a line of many transfers at once."""
    sides = both(Transfer, method, "nbd-memory", "https", connections=4, transfers=TRANSFERS)
    about = f"{TRANSFERS} transfers at once, with four HTTPS connections each; 1 GiB together"
    name = f"{method.lower()}-nbd-memory-https-{TRANSFERS}x4"
    targets = (Times(0.8, cpu_of=SERVER), Times(1.25))
    gib = TRANSFERS * 4 * share(4, TRANSFERS) / GIB
    return Line(name, "MiB/s", sides, about=about, targets=targets, warmups=1, gib=gib)


LINES = [
    *(
        line(method, storage, via, connections)
        for storage in STORAGES
        for via in ("unix", "https")
        for connections in (1, 4)
        for method in ("GET", "PUT")
    ),
    with_curl("GET", "nbd-memory"),
    with_curl("PUT", "nbd-memory"),
    with_curl("GET", "file-memory"),
    many("GET"),
    many("PUT"),
]
