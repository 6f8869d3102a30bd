"""The client library: ours with our daemon, and the released library with the released daemon; qemu-nbd behind both.

Images are in memory, so what is measured is what the programs do.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

from bench.lines import Line, Side, Times
from bench.peers import timed
from bench.relay import Distance, relayed
from real import daemon, release

from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

__all__ = ["KIB", "LINES", "MEMORY", "MIB", "PROGRAM", "Transfer", "serve"]

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

# Nothing but the programs shall cost.
MEMORY = "/dev/shm"
ROUNDS = 3

PROGRAM = """
import sys, time
from ovirt_imageio import client
start = time.monotonic()
if sys.argv[1] == "upload":
    client.upload(sys.argv[2], sys.argv[3], sys.argv[4])
else:
    client.download(sys.argv[3], sys.argv[2], sys.argv[4], fmt=sys.argv[5])
print(time.monotonic() - start)
"""


def full(path: Path) -> int:
    """Make an image that is all data."""
    block = os.urandom(MIB)
    path.write_bytes(block * (GIB // MIB))
    return GIB


def sparse(path: Path) -> int:
    """Make one of 20 GiB with 512 MiB of data, in pieces of 1 MiB."""
    block = os.urandom(MIB)
    with open(path, "wb") as file:
        file.truncate(20 * GIB)
        for number in range(512):
            file.seek(number * 40 * MIB)
            file.write(block)
    return 20 * GIB


def huge(path: Path) -> int:
    """Make one of 100 GiB with 1 GiB of data, in pieces of 16 MiB."""
    block = os.urandom(16 * MIB)
    with open(path, "wb") as file:
        file.truncate(100 * GIB)
        for number in range(64):
            file.seek(number * 1600 * MIB)
            file.write(block)
    return 100 * GIB


def fragmented(path: Path) -> int:
    """Make one with 16,000 pieces of 64 KiB of data, and as much between them."""
    block = os.urandom(64 * KIB)
    with open(path, "wb") as file:
        file.truncate(16_000 * 128 * KIB)
        for number in range(16_000):
            file.seek(number * 128 * KIB)
            file.write(block)
    return 16_000 * 128 * KIB


def scattered(path: Path) -> int:
    """Make a qcow2 with 16,000 clusters of data, one of four."""
    return pieces(path, 16_000, 64 * KIB, 256 * KIB)


def sparse_qcow2(path: Path) -> int:
    """Make a qcow2 of 20 GiB with 512 MiB of data, in pieces of 1 MiB."""
    return pieces(path, 512, MIB, 40 * MIB)


def pieces(path: Path, count: int, length: int, step: int) -> int:
    """Make a qcow2 with pieces of data, one each step."""
    raw = path.with_suffix(".raw")
    block = os.urandom(length)
    with open(raw, "wb") as file:
        file.truncate(count * step)
        for number in range(count):
            file.seek(number * step)
            file.write(block)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)], check=True)
    raw.unlink()
    return count * step


def empty(path: Path) -> int:
    """Make an empty one of 8 TiB."""
    path.unlink(missing_ok=True)
    img.create(str(path), "qcow2", 8 * TIB)
    return 8 * TIB


def serve(disk: Path, fmt: str = "raw") -> QemuNbd:
    """Return a server for a disk."""
    return QemuNbd(str(disk), fmt, cache="writeback", aio="threads")


class Transfer:
    """One library, one daemon, one image, one direction."""

    def __init__(
        self,
        kind: str,
        make: Callable[[Path], int],
        direction: str,
        *,
        tls: bool = False,
        fmt: str = "raw",
        is_nbd: bool = True,
        distance: Optional[Distance] = None,
    ):
        self._kind = kind
        self._make = make
        self._direction = direction
        self._tls = tls
        self._format = fmt
        self._is_nbd = is_nbd
        self._distance = distance
        self._run: Callable[[], float] = lambda: 0.0
        # Returns how many bytes the daemon has moved until now.
        self._count: Callable[[], int] = lambda: 0

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run what is needed."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
            image, disk = folder / "image", folder / "disk"
            size = self._make(image)
            text = "[local]\nenable = false\n" if self._tls else ""
            start = daemon.running if self._kind == "ours" else release.running
            running = stack.enter_context(start(folder, text))
            served, other = (disk, image) if self._direction == "upload" else (image, disk)
            if self._direction == "upload":
                img.create(str(disk), self._format, size)
            disk_url = f"file://{served}"
            if self._is_nbd:
                disk_url = stack.enter_context(serve(served, self._format)).url
            # The daemon counts what moves where only one of both may be done.
            ops = ["read", "write"] if self._direction == "upload" else ["read"]
            url = running.add_ticket(url=disk_url, size=size, sparse=True, ops=ops)
            if self._distance:
                far = stack.enter_context(relayed(running.port, self._distance))
                url = url.replace(f":{running.port}/", f":{far}/")
            python = release.python() if self._kind == "release" else sys.executable
            command = [python, "-c", PROGRAM, self._direction, str(other), url, running.ca_file, self._format]
            environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            if self._kind == "ours":
                environ["PYTHONPATH"] = str(daemon.ROOT)

            def run() -> float:
                done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                return float(done.stdout)

            def count() -> int:
                status, answer = running.control("GET", f"/tickets/{url.rpartition('/')[2]}")
                assert status == 200, answer
                return int(json.loads(answer)["transferred"])

            self._run, self._count = run, count
            yield

    def sample(self) -> float:
        """Transfer once; return the seconds."""
        time.sleep(0.1)
        return self._run()

    def moved(self) -> float:
        """Transfer once; return how many MiB the daemon moved for that."""
        before = self._count()
        self._run()
        return (self._count() - before) / MIB


class Conversion:
    """qemu-img, which uploads an image to a qemu-nbd as an NBD client, or downloads one, without a daemon between."""

    def __init__(self, make: Callable[[Path], int], direction: str) -> None:
        self._make = make
        self._is_upload = direction == "upload"
        self._image = self._disk = Path()
        self._size = 0

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Make the image."""
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            self._image, self._disk = Path(folder, "image"), Path(folder, "disk")
            self._size = self._make(self._image)
            yield

    def sample(self) -> float:
        """Convert to a new image; return the seconds."""
        self._disk.unlink(missing_ok=True)
        served = self._image
        if self._is_upload:
            served = self._disk
            img.create(str(self._disk), "qcow2", self._size)
        with QemuNbd(str(served), "qcow2", read_only=not self._is_upload, cache="writeback", aio="threads") as server:
            if self._is_upload:
                options = ["-n", "--target-is-zero", "-f", "qcow2", "-O", "raw", str(self._image), server.url]
            else:
                options = ["-f", "raw", "-O", "qcow2", server.url, str(self._disk)]
            return timed("qemu-img", "convert", "-W", *options)


def line(
    name: str,
    make: Callable[[Path], int],
    direction: str,
    about: str,
    *,
    times: float = 0,
    limit: float = 0,
    of_convert: float = 0,
    **options: object,
) -> Line:
    """Return a line of both libraries; ours should be so many times as fast, or take so many seconds at most.

    `of_convert`: how many times as long as qemu-img it may take.
    """
    sides = []
    for kind in ("ours", "release"):
        transfer = Transfer(kind, make, direction, **options)
        sides.append(Side(kind, transfer.sample, transfer.setup))
    # They take seconds: half of them is twice as fast.
    targets = [Times(round(1 / times, 2))] if times else []
    if of_convert:
        conversion = Conversion(make, direction)
        sides.append(Side("qemu-img", conversion.sample, conversion.setup))
        targets.append(Times(of_convert, "qemu-img"))
    return Line(name, "s", sides, target=limit, less_is_better=True, rounds=ROUNDS, about=about, targets=targets)


def reading_line(name: str, make: Callable[[Path], int], about: str, *, limit: float) -> Line:
    """Return a line of what our daemon reads for a download, of a file; the release would read all of it."""
    transfer = Transfer("ours", make, "download", is_nbd=False)
    side = Side("ours", transfer.moved, transfer.setup)
    return Line(name, "MiB", [side], target=limit, less_is_better=True, rounds=1, about=about)


LINES = [
    line("client-upload-unix", full, "upload", "upload 1 GiB over the Unix socket", times=2.2),
    line("client-download-unix", full, "download", "download 1 GiB over the Unix socket", times=1.8),
    line("client-upload-https", full, "upload", "upload 1 GiB over HTTPS", tls=True, times=1.3),
    line("client-download-https", full, "download", "download 1 GiB over HTTPS", tls=True, times=1.3),
    line("client-upload-sparse", sparse, "upload", "upload 20 GiB with 512 MiB of data", times=1.5),
    line("client-download-sparse", sparse, "download", "download 20 GiB with 512 MiB of data", times=1.5),
    line("client-upload-fragmented", fragmented, "upload", "upload 16,000 data extents of 64 KiB", times=4),
    line("client-download-fragmented", fragmented, "download", "download 16,000 data extents of 64 KiB", times=2),
    line(
        *("client-upload-scattered-unix", scattered, "upload"),
        *("upload a qcow2 with 16,000 clusters of data, one of four, over the Unix socket",),
        times=5,
        of_convert=1.8,
        fmt="qcow2",
    ),
    line(
        *("client-download-scattered-unix", scattered, "download", "download that one over the Unix socket"),
        times=5,
        fmt="qcow2",
    ),
    line(
        *("client-upload-scattered-https", scattered, "upload", "upload that one over HTTPS"),
        times=3.5,
        tls=True,
        fmt="qcow2",
    ),
    line(
        *("client-download-scattered-https", scattered, "download", "download that one over HTTPS"),
        times=3.5,
        tls=True,
        fmt="qcow2",
    ),
    line(
        *("client-download-sparse-https", sparse_qcow2, "download"),
        *("download a qcow2 of 20 GiB with 512 MiB of data over HTTPS",),
        times=1.5,
        tls=True,
        fmt="qcow2",
    ),
    line("client-upload-empty", empty, "upload", "upload an empty image of 8 TiB", fmt="qcow2", limit=2),
    line("client-download-empty", empty, "download", "download an empty image of 8 TiB", fmt="qcow2", limit=2),
    reading_line("client-read-huge", huge, "read of a file of 100 GiB with 1 GiB of data", limit=1024),
]
