"""The client library over a line that loses packets, by lossy.py: how much of the line it fills, over HTTPS.

    iperf3      what eight connections move there that are busy all the time
    curl        what one connection moves

150 ms, 0.1 % of packets lost each way, 100 Mbit/s; what TCP makes of the losses binds, and neither the line nor the
processors. Each sample takes seconds, so there are few; losses meet some harder than others.
"""

from __future__ import annotations

import abc
import contextlib
import filecmp
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import client_lines
from bench.client_lines import KIB, MEMORY, MIB, PROGRAM
from bench.lines import Line, Side, Times
from bench.lossy import FAR, Weather, lossy
from bench.peers import need
from fakes.waiting import wait_until
from real import certificates, daemon

__all__ = ["LINES", "line"]

WEATHER = Weather(0.15, 0.001, 100e6 / 8)

# It takes eight connections 10 to 15 seconds, of which slow start is a part: iperf3 moves as much. One connection gets
# a sixth of it.
SIZE = 60 * MIB
ROUNDS = 2

EXTENT = 64 * KIB

CONFIG = f"""\
[remote]
host = {FAR}
[local]
enable = false
"""


def data(size: int, step: int, path: Path) -> int:
    """Make an image with this much data, in extents; each begins `step` bytes after the one before."""
    with open(path, "wb") as file:
        for number in range(size // EXTENT):
            file.seek(number * step)
            file.write(os.urandom(EXTENT))
        file.truncate(size // EXTENT * step)
    return size // EXTENT * step


class Contender(abc.ABC):
    """A program at the near end that moves something in one direction, over a line of its own."""

    def __init__(self, direction: str, weather: Weather, size: int) -> None:
        self.is_upload = direction == "upload"
        self.weather = weather
        self.size = size
        self.command: Sequence[str] = ()

    @abc.abstractmethod
    def setup(self) -> contextlib.AbstractContextManager[None]:
        """Run what is needed. Raises Missing."""

    @abc.abstractmethod
    def sample(self) -> float:
        """Return Mbit/s."""

    def run(self) -> str:
        """Run the command; return what it prints."""
        return subprocess.run(self.command, check=True, stdout=subprocess.PIPE, text=True, cwd="/").stdout


class Iperf(Contender):
    """iperf3 with eight connections."""

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run its server."""
        program = need("iperf3")
        with lossy(self.weather) as line:
            server = [*line.far, program, "--server"]
            with subprocess.Popen(server, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
                try:
                    wait_until(lambda: b":5201" in subprocess.check_output([*line.far, "ss", "-tln"]))
                    reverse = [] if self.is_upload else ["--reverse"]
                    options = ["--client", FAR, "--parallel", "8", "--bytes", str(self.size), "--json"]
                    self.command = [*line.near, program, *options, *reverse]
                    yield
                finally:
                    process.kill()

    def sample(self) -> float:
        """Return Mbit/s that arrive."""
        return float(json.loads(self.run())["end"]["sum_received"]["bits_per_second"]) / 1e6


class Transfer(Contender):
    """A program that moves an image from or to our daemon."""

    def __init__(self, direction: str, weather: Weather, size: int, step: int = EXTENT) -> None:
        super().__init__(direction, weather, size)
        self._make = functools.partial(data, size, step)
        self.files = (Path(), Path())

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run a daemon with an image."""
        with contextlib.ExitStack() as stack:
            line = stack.enter_context(lossy(self.weather))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
            here, there = self.files = folder / "here", folder / "there"
            image, copy = (here, there) if self.is_upload else (there, here)
            size = self._make(image)
            copy.write_bytes(b"")
            os.truncate(copy, size)
            tls = certificates.certificate("far", f"IP:{FAR}")
            running = stack.enter_context(daemon.running(folder, CONFIG, tls=tls, wrapper=line.far))
            server = stack.enter_context(client_lines.serve(there))
            url = running.add_ticket(url=server.url, size=size, sparse=True).replace("localhost", FAR)
            self.command = [*line.near, *self.words(str(here), url, tls.ca_file)]
            yield

    @abc.abstractmethod
    def words(self, here: str, url: str, ca_file: str) -> list[str]:
        """Return a command, which prints the seconds. Raises Missing."""

    def sample(self) -> float:
        """Move the image, and see that every byte is right."""
        seconds = float(self.run().split()[-1])
        assert filecmp.cmp(*self.files, shallow=False)
        return self.size * 8 / 1e6 / seconds


class Library(Transfer):
    """Our client library."""

    def words(self, here: str, url: str, ca_file: str) -> list[str]:
        """Return a command, which prints the seconds."""
        direction = "upload" if self.is_upload else "download"
        python = ["env", f"PYTHONPATH={daemon.ROOT}", sys.executable]
        return [*python, "-c", PROGRAM, direction, here, url, ca_file, "raw"]


class Curl(Transfer):
    """curl, over one connection."""

    def words(self, here: str, url: str, ca_file: str) -> list[str]:
        """Return a command, which prints the seconds. Raises Missing."""
        what = ["--upload-file", here] if self.is_upload else ["--output", here]
        report = ["--write-out", "\n%{time_total}"]
        return [need("curl"), "--silent", "--show-error", "--fail", *report, "--cacert", ca_file, *what, url]


def line(direction: str, kind: str, weather: Weather = WEATHER, size: int = SIZE, rounds: int = ROUNDS) -> Line:
    """Return a line: ours should reach four fifths of iperf3."""
    contenders: dict[str, Contender] = {
        "ours": Library(direction, weather, size, EXTENT * (2 if kind == "extents" else 1)),
        "iperf3": Iperf(direction, weather, size),
    }
    if kind == "data":
        contenders["curl"] = Curl(direction, weather, size // 6)
    sides = [Side(name, contender.sample, contender.setup) for name, contender in contenders.items()]
    what = f"{size // MIB} MiB of data{' in extents of 64 KiB' if kind == 'extents' else ''}"
    about = (
        f"{direction} {what}, {weather.round_trip * 1000:.0f} ms away, "
        f"{weather.loss:.1%} of packets lost, {weather.rate * 8 / 1e6:.0f} Mbit/s"
    )
    name = f"distance-lossy-{direction}-{kind}"
    return Line(name, "Mbit/s", sides, rounds=rounds, about=about, targets=[Times(0.8, "iperf3")])


LINES = [line(direction, kind) for kind in ("data", "extents") for direction in ("upload", "download")]
