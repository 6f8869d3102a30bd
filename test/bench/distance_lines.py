"""The client library over distance: 50 ms for the way there and back, by the relay of relay.py, over HTTPS.

    extents     2,000 of 64 KiB, with as much between them: what a round trip for each costs
    data        256 MiB: whether the line is full

Beside the released library with the released daemon stand programs that know nothing of images, with our daemon: curl,
over one connection, and rclone, which downloads over several.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import client_lines
from bench.client_lines import KIB, MEMORY, MIB, Transfer
from bench.lines import Line, Side, Times
from bench.peers import need, timed
from bench.relay import Distance, relayed
from real import daemon

__all__ = ["LINES"]

FAR = Distance(0.05)

# The release takes half a minute for the extents.
ROUNDS = 3

COUNT = 2000
LENGTH = 64 * KIB
DATA = 256 * MIB


def extents(path: Path) -> int:
    """Make an image of many pieces."""
    block = os.urandom(LENGTH)
    with open(path, "wb") as file:
        file.truncate(COUNT * 2 * LENGTH)
        for number in range(COUNT):
            file.seek(number * 2 * LENGTH)
            file.write(block)
    return COUNT * 2 * LENGTH


def data(path: Path) -> int:
    """Make an image that is all data."""
    path.write_bytes(os.urandom(MIB) * (DATA // MIB))
    return DATA


class Program:
    """A program that moves all of an image, as one file."""

    def __init__(self, name: str, direction: str) -> None:
        self._name = name
        self._direction = direction
        self._command: list[str] = []

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run a daemon with an image. Raises Missing."""
        program = need(self._name)
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
            size = data(folder / "image")
            disk = folder / "disk"
            served = disk if self._direction == "upload" else folder / "image"
            disk.write_bytes(b"")
            os.truncate(disk, size)
            running = stack.enter_context(daemon.running(folder, "[local]\nenable = false\n"))
            server = stack.enter_context(client_lines.serve(served))
            url = running.add_ticket(url=server.url, size=size, sparse=True)
            far = stack.enter_context(relayed(running.port, FAR))
            url = url.replace(f":{running.port}/", f":{far}/")
            self._command = [program, *self._arguments(url, running.ca_file, folder)]
            yield

    def _arguments(self, url: str, ca_file: str, folder: Path) -> list[str]:
        if self._name == "rclone":
            base, _, name = url.rpartition("/")
            # All it knows to be quick: ranges over four connections.
            fast = ["--multi-thread-streams", "4", "--multi-thread-cutoff", "1M"]
            where = ["--config", os.devnull, "--http-url", base, "--ca-cert", ca_file, "--ignore-times"]
            return ["copyto", *where, *fast, f":http:{name}", f"{folder}/copy"]
        if self._direction == "upload":
            return ["--silent", "--fail", "--cacert", ca_file, "--upload-file", f"{folder}/image", url]
        return ["--silent", "--fail", "--cacert", ca_file, "--output", f"{folder}/disk", url]

    def sample(self) -> float:
        """Move it; return the seconds."""
        return timed(*self._command)


def line(kind: str, direction: str, about: str, *, targets: dict[str, float]) -> Line:
    """Return a line; it should take at most so many times as long as each of the others."""
    make = extents if kind == "extents" else data
    sides = []
    for who in ("ours", "release"):
        transfer = Transfer(who, make, direction, tls=True, distance=FAR)
        sides.append(Side(who, transfer.sample, transfer.setup))
    for name in targets:
        if name != "release":
            program = Program(name, direction)
            sides.append(Side(name, program.sample, program.setup))
    times = [Times(factor, name) for name, factor in targets.items()]
    name = f"distance-{direction}-{kind}"
    return Line(name, "s", sides, less_is_better=True, rounds=ROUNDS, about=f"{about}, 50 ms away", targets=times)


LINES = [
    line("extents", "upload", "upload 2,000 data extents of 64 KiB", targets={"release": 0.1}),
    line("extents", "download", "download 2,000 data extents of 64 KiB", targets={"release": 0.1}),
    line("data", "upload", "upload 256 MiB of data", targets={"release": 1, "curl": 0.5}),
    line("data", "download", "download 256 MiB of data", targets={"release": 1, "rclone": 1, "curl": 0.5}),
]
