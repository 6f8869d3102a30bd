"""Where the daemons meet: ours and the released one, each started once for all lines.

    with arena.running():                       # around everything that is measured
        daemon = arena.daemon("ours")           # starts it when it is not there
        url = arena.add_ticket("ours", "nbd-memory")

They share the disks that are files. Each has a qemu-nbd of its own, with a disk of its own: how much memory that keeps,
and so how fast it is, depends on what it was asked for before.

Nothing is started before a line asks for it, and nothing is left afterwards.
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

from ovirt_imageio.qemu.nbd import QemuNbd

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
    """One disk."""

    path: Path
    server: Optional[QemuNbd] = None

    @property
    def url(self) -> str:
        """What a ticket says."""
        return self.server.url if self.server else f"file://{self.path}"


class Arena:
    """Daemons and disks, made on first use."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._daemons: dict[str, daemon.Daemon] = {}
        self._disks: dict[tuple[str, str], Disk] = {}

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

    def disk(self, kind: str, owner: str = "") -> Disk:
        """Return a disk of 1 GiB: "file-memory", "file-disk", or one that is behind the qemu-nbd of its owner.

        Those are "nbd-memory", and "scratch" to write small things.
        """
        key = (kind, "" if kind.startswith("file") else owner)
        if key not in self._disks:
            path = self.folder(STORAGE if kind == "file-disk" else MEMORY) / "disk"
            fill(path)
            server = None if kind.startswith("file") else self._stack.enter_context(serve(path))
            self._disks[key] = Disk(path, server)
        return self._disks[key]

    def add_ticket(self, kind: str, disk: str) -> str:
        """Add a ticket to a daemon; return its id."""
        url = self.daemon(kind).add_ticket(url=self.disk(disk, kind).url, size=SIZE, sparse=True, **LIFE)
        return url.rpartition("/")[2]

    def processes(self, kind: str, disk: str) -> dict[str, int]:
        """Return the ids of a daemon, and of the qemu-nbd behind it."""
        server = self.disk(disk, kind).server
        pids = {"daemon": self.daemon(kind).process.pid}
        return {**pids, "qemu-nbd": server.pid} if server else pids


def local_socket(folder: Path) -> str:
    """Return where the local listener of a daemon is."""
    return f"{folder}/local.sock"


def serve(path: Path) -> QemuNbd:
    """Return a server for as many connections as like to come; it looks for no zeroes, as there are none."""
    return QemuNbd(str(path), "raw", cache="writeback", aio="threads", shared=0, detect_zeroes=None)


def fill(path: Path) -> None:
    """Write a disk that has no zeroes and no holes."""
    data = os.urandom(MIB).replace(b"\0", b"\1")
    with open(path, "wb", buffering=0) as file:
        for _ in range(SIZE // MIB):
            file.write(data)
        os.fsync(file.fileno())


arena = Arena()
