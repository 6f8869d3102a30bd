"""What the daemons need of memory: for a connection that is busy, and in all lines before; so this comes last."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.arena import LIFE, MIB, SIZE, arena
from bench.extents_lines import peak_memory
from bench.lines import Line, Side, Times
from bench.path_lines import transfer
from real import daemon, release
from real.release import Missing

__all__ = ["LINES"]

# So many in each direction.
CONNECTIONS = 10


def side(kind: str) -> Side:
    """Return one daemon."""

    @contextlib.contextmanager
    def setup() -> Iterator[None]:
        if kind not in arena.started():
            raise Missing("no line before this one used it")
        yield

    return Side(kind, lambda: peak_memory(arena.daemon(kind).process.pid), setup)


def per_connection(kind: str) -> Side:
    """Return a daemon of its own, with many connections that download, and many that upload, all at once."""
    start = daemon.running if kind == "ours" else release.running

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder, start(Path(folder)) as running:
            url = arena.disk("scratch", kind).url
            ticket = running.add_ticket(url=url, size=SIZE, sparse=True, **LIFE).rpartition("/")[2]
            step = SIZE // CONNECTIONS // MIB * MIB
            jobs = []
            for start_at in range(0, step * CONNECTIONS, step):
                where = f"bytes={start_at}-{start_at + step - 1}"
                head = f"GET /images/{ticket} HTTP/1.1\r\nHost: localhost\r\nRange: {where}\r\n\r\n"
                jobs.append({"head": head, "download": step})
                where = f"bytes {start_at}-{start_at + step - 1}/*\r\nContent-Length: {step}"
                head = f"PUT /images/{ticket} HTTP/1.1\r\nHost: localhost\r\nContent-Range: {where}\r\n\r\n"
                jobs.append({"head": head, "upload": step})
            before = peak_memory(running.process.pid)
            transfer([{"address": ["localhost", running.port], "ca_file": running.ca_file, **job} for job in jobs])
            return (peak_memory(running.process.pid) - before) / len(jobs)

    return Side(kind, run)


LINES = [
    Line(
        *("connection-memory", "MiB", [per_connection("ours"), per_connection("release")], 6),
        about=f"memory of each of {2 * CONNECTIONS} HTTPS connections that move data at once, to and from nbd",
        less_is_better=True,
        rounds=3,
    ),
    Line(
        *("daemon-peak", "MiB", [side("ours"), side("release")]),
        about="peak memory of each daemon in all lines that it served",
        less_is_better=True,
        targets=(Times(1),),
        rounds=1,
    ),
]
