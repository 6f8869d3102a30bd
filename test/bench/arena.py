"""Where the daemons meet: ours and the released one, each started once for all lines, on the same disks.

    with arena.running():                       # around everything that is measured
        daemon = arena.daemon("ours")           # starts it when it is not there
        url = daemon.add_ticket(**arena.disk("nbd-memory"))

Nothing is started before somebody asks for it, and nothing is left afterwards.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from real import daemon, release

from ovirt_imageio.nbd.server import Server

__all__ = ["GIB", "MEMORY", "MIB", "SIZE", "Arena", "Disk", "arena"]

MIB = 1024**2
GIB = 1024**3
SIZE = GIB

MEMORY = "/dev/shm"
# /tmp may be memory.
STORAGE = "/var/tmp"

# More requests than any line sends, or a ticket would end in the middle of one.
LIFE = {"timeout": 36_000, "inactivity_timeout": 36_000}


@dataclass(frozen=True)
class Disk:
    """One disk that both daemons serve."""

    path: Path
    server: Optional[Server] = None

    @property
    def url(self) -> str:
        """What a ticket says."""
        return self.server.url if self.server else f"file://{self.path}"


class Arena:
    """Daemons and disks, made on first use."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._daemons: dict[str, daemon.Daemon] = {}
        self._disks: dict[str, Disk] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[Arena]:
        """End everything when the block is left."""
        try:
            yield self
        finally:
            self._stack.close()
            self._daemons.clear()
            self._disks.clear()

    def folder(self, parent: Optional[str] = None) -> Path:
        """Return a new folder that is removed at the end."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(dir=parent)))

    def daemon(self, kind: str) -> daemon.Daemon:
        """Return the daemon, "ours" or "release". Raises Missing if it cannot be had."""
        if kind not in self._daemons:
            folder = self.folder()
            text = f"[local]\nsocket = {local_socket(folder)}\n"
            start = daemon.running if kind == "ours" else release.running
            self._daemons[kind] = self._stack.enter_context(start(folder, text))
        return self._daemons[kind]

    def started(self) -> dict[str, daemon.Daemon]:
        """Return the daemons that were used until now."""
        return dict(self._daemons)

    def disk(self, kind: str) -> Disk:
        """Return a disk of 1 GiB: "file-memory", "nbd-memory", "file-disk", or "scratch" to write small things."""
        if kind not in self._disks:
            self._disks[kind] = self._make(kind)
        return self._disks[kind]

    def add_ticket(self, kind: str, disk: str) -> str:
        """Add a ticket to a daemon; return its id."""
        url = self.daemon(kind).add_ticket(url=self.disk(disk).url, size=SIZE, sparse=True, **LIFE)
        return url.rpartition("/")[2]

    def _make(self, kind: str) -> Disk:
        if kind == "nbd-memory":
            # The same bytes, another way to them.
            path = self.disk("file-memory").path
            return Disk(path, self._stack.enter_context(serve(path)))
        path = self.folder(STORAGE if kind == "file-disk" else MEMORY) / "disk"
        fill(path)
        return Disk(path, self._stack.enter_context(serve(path)) if kind == "scratch" else None)


def local_socket(folder: Path) -> str:
    """Return where the local listener of a daemon is."""
    return f"{folder}/local.sock"


def serve(path: Path) -> Server:
    """Return a server for as many connections as like to come; it looks for no zeroes, as there are none."""
    return Server(str(path), "raw", cache="writeback", aio="threads", shared=0, detect_zeroes=None)


def fill(path: Path) -> None:
    """Write a disk that has no zeroes and no holes."""
    data = os.urandom(MIB).replace(b"\0", b"\1")
    with open(path, "wb", buffering=0) as file:
        for _ in range(SIZE // MIB):
            file.write(data)
        os.fsync(file.fileno())


arena = Arena()
