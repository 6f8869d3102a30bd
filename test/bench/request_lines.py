"""Small requests over HTTPS: 4 KiB at random places of a real disk, what OPTIONS costs, and what connecting costs."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from typing import Any, Callable

from bench.arena import SIZE, arena
from bench.lines import Line, Side, Times
from bench.peers import need, timed
from real.release import Missing

__all__ = ["LINES"]

BLOCK = 4096
SECONDS = 2

# The same places in each run; nothing is flushed, as that would measure the storage.
RANDOM = f"math.randomseed(1)\nlocal function offset() return math.random(0, {SIZE // BLOCK - 1}) * {BLOCK} end\n"
SCRIPTS = {
    "get": f"""
function request()
    local first = offset()
    return wrk.format("GET", nil, {{["Range"] = "bytes=" .. first .. "-" .. first + {BLOCK - 1}}})
end
""",
    "put": f"""
local body = string.rep("x", {BLOCK})
function request()
    local first = offset()
    local range = "bytes " .. first .. "-" .. first + {BLOCK - 1} .. "/*"
    return wrk.format("PUT", wrk.path .. "?flush=n", {{["Content-Range"] = range}}, body)
end
""",
    "zero": f"""
function request()
    local body = '{{"op": "zero", "size": {BLOCK}, "flush": false, "offset": ' .. offset() .. '}}'
    return wrk.format("PATCH", nil, {{["Content-Type"] = "application/json"}}, body)
end
""",
    "options": 'wrk.method = "OPTIONS"\n',
}


class Requests:
    """One daemon, one ticket, and wrk."""

    def __init__(self, kind: str, script: str, connections: int) -> None:
        self._kind = kind
        self._script = script
        self._connections = connections
        self._command: list[str] = []

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Add the ticket."""
        path = arena.folder() / "script.lua"
        path.write_text(RANDOM + SCRIPTS[self._script])
        url = arena.daemon(self._kind).url(arena.add_ticket(self._kind, "scratch"))
        options = ["-t1", f"-c{self._connections}", f"-d{SECONDS}s", "-s", str(path)]
        self._command = [need("wrk"), *options, url]
        yield

    def run(self) -> float:
        """Return the requests per second; all must be answered well."""
        output = subprocess.run(self._command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"Requests/sec: +([0-9.]+)", output)
        if found is None or "Non-2xx" in output or "Socket errors" in output:
            raise RuntimeError(output)
        return float(found.group(1))


class Handshakes:
    """One daemon, and clients that connect and leave."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Start the daemon."""
        need("openssl")
        arena.daemon(self._kind)
        yield

    def run(self) -> float:
        """Return the complete TLS handshakes per second, one after the other."""
        daemon = arena.daemon(self._kind)
        command = ["openssl", "s_time", "-new", "-connect", f"localhost:{daemon.port}", "-time", str(SECONDS)]
        done = subprocess.run([*command, "-CAfile", daemon.ca_file], capture_output=True, text=True)
        found = re.search(r"(\d+) connections in (\d+) real seconds", done.stdout)
        if found is None:
            raise Missing(f"openssl s_time says: {done.stdout} {done.stderr}")
        return int(found.group(1)) / int(found.group(2))


class Checksum:
    """One daemon that looks at the whole disk."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._command: list[str] = []

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Add the ticket."""
        daemon = arena.daemon(self._kind)
        url = daemon.url(arena.add_ticket(self._kind, "nbd-memory"))
        self._command = [need("curl"), "-sSf", "--cacert", daemon.ca_file, f"{url}/checksum"]
        yield

    def run(self) -> float:
        """Return the seconds."""

        return timed(*self._command)


def both(make: Callable[[str], Any], disk: str = "scratch") -> list[Side]:
    """Return both daemons, each measured by what is made for it."""
    pairs = [(kind, make(kind)) for kind in ("ours", "release")]
    return [Side(kind, item.run, item.setup, lambda kind=kind: arena.processes(kind, disk)) for kind, item in pairs]


def line(name: str, script: str, about: str, *targets: Times, connections: int = 1, rounds: int = 3) -> Line:
    """Return a line of requests to both daemons."""
    pairs = both(lambda kind: Requests(kind, script, connections))
    return Line(name, "requests/s", pairs, about=about, targets=targets, rounds=rounds, warmups=1)


LINES = [
    line("get-4k-https-1", "get", "random GET of 4 KiB, one HTTPS connection", Times(2), rounds=5),
    line("put-4k-https-1", "put", "random PUT of 4 KiB, not flushed, one HTTPS connection", Times(2), rounds=5),
    line("get-4k-https-4", "get", "random GET of 4 KiB, four HTTPS connections", connections=4),
    line("get-4k-https-100", "get", "random GET of 4 KiB, a hundred HTTPS connections", Times(1.5), connections=100),
    line("put-4k-https-100", "put", "random PUT of 4 KiB, a hundred HTTPS connections", Times(1.5), connections=100),
    # Last, as it leaves holes.
    line("zero-4k-https-1", "zero", "random zero of 4 KiB, not flushed, one HTTPS connection"),
    line("options-https-1", "options", "OPTIONS, one HTTPS connection"),
    Line("handshakes", "handshakes/s", both(Handshakes), about="TLS connections, one after the other", rounds=3),
    Line(
        *("checksum", "s", both(Checksum, "nbd-memory")),
        about="checksum of 1 GiB of data, nbd on memory",
        less_is_better=True,
        targets=(Times(round(1 / 1.8, 2)),),
        warmups=1,
    ),
]
