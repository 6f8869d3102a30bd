"""Small loop devices and mounts that live as long as one test, for what the shared storage is too big or too good for.

    with loop.device(tmp_path / "backing", size=4 * 1024**2, sector_size=4096) as path: ...
    with loop.mounted(tmp_path, "ext4", size=8 * 1024**2) as folder: ...

Needs root; `available` tells.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available", "device", "mounted"]


def available() -> bool:
    """Return True if this user may make loop devices, and mount them."""
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control") and shutil.which("losetup") is not None


@contextlib.contextmanager
def device(backing: Path, size: int, sector_size: int = 512) -> Iterator[str]:
    """Make a block device of `size` bytes, sparse and zero, over a new file; yield its path."""
    with open(backing, "wb") as f:
        f.truncate(size)
    path = run("losetup", "--find", "--show", f"--sector-size={sector_size}", str(backing)).strip()
    try:
        yield path
    finally:
        run("losetup", "--detach", path)


@contextlib.contextmanager
def mounted(base: Path, kind: str, size: int, *options: str) -> Iterator[Path]:
    """Make a file system of this kind over a loop device and mount it; yield its folder."""
    folder = base / f"mount-{kind}"
    folder.mkdir()
    with device(base / f"backing-{kind}", size) as path:
        run(f"mkfs.{kind}", "-q", path)
        run("mount", *options, path, str(folder))
        try:
            yield folder
        finally:
            run("umount", str(folder))


def run(*command: str) -> str:
    """Run a program that must succeed; return what it printed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
