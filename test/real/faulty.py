"""A file whose storage fails on demand: an NBD server that injects errors, behind a FUSE mount.

with faulty.file(tmp_path) as disk:
    disk.fail()         # from now on each read and write is an I/O error
    disk.mend()
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from fakes.waiting import wait_until

__all__ = ["FaultyFile", "available", "file"]


class FaultyFile:
    """A file of `size` bytes at `path`."""

    def __init__(self, path: Path, switch: Path, size: int) -> None:
        self.path = str(path)
        self.size = size
        self._switch = switch

    def fail(self) -> None:
        """Let reads and writes fail."""
        self._switch.touch()

    def mend(self) -> None:
        """Let reads and writes work again."""
        self._switch.unlink()


def available() -> bool:
    """Return True if the programs are there, and this user may mount."""
    return os.geteuid() == 0 and os.path.exists("/dev/fuse") and all(map(shutil.which, ("nbdfuse", "nbdkit")))


@contextlib.contextmanager
def file(base: Path, size: int = 8 * 1024**2) -> Iterator[FaultyFile]:
    """Mount such a file below base."""
    folder, switch = base / "faulty", base / "faulty-switch"
    folder.mkdir()
    disk = FaultyFile(folder / "disk", switch, size)
    server = ["nbdkit", "--exit-with-parent", "--filter=error", "memory", str(size)]
    server += ["error=EIO", "error-rate=100%", f"error-file={switch}"]
    process = subprocess.Popen(
        ["nbdfuse", disk.path, "[", *server, "]"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:

        def is_mounted() -> bool:
            assert process.poll() is None, "nbdfuse failed to start"
            return os.path.exists(disk.path)

        wait_until(is_mounted, lambda: "nbdfuse did not mount in time")
        yield disk
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", str(folder)], check=True)
        else:
            process.kill()
        process.wait()
