"""What a process does to one file, as the log of a disk with a write cache: the file system loses what was not synced.

    with logging_file(path, disk) as journals:
        ...

Only what the process asks for counts, in the order in which it asks; what programs that it starts do is not seen. The
names that change are told to `Names`: which file is there after a crash is sure when its folder was synced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from fakes.volatile import VolatileDisk

from ovirt_imageio.storage import zero

__all__ = ["Names", "logging_file"]


class Version(NamedTuple):
    """What a name stands for from a point on; None: there is no file."""

    point: int
    content: Optional[bytes]


class Names:
    """What one name stood for, from the beginning on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._versions = [Version(0, self._read(path))]
        # When the folder was synced, and how many versions there were.
        self._synced = [(0, 0)]

    def note(self, point: int, path: Optional[str] = None) -> None:
        """Note that the name stands for what is in another file, or for nothing."""
        self._versions.append(Version(point, self._read(path or self.path)))

    def note_sync(self, point: int) -> None:
        """Note that the folder was synced."""
        self._synced.append((point, len(self._versions) - 1))

    def after_crash(self, point: int) -> Iterator[Optional[bytes]]:
        """Yield each content that the file may have after a crash."""
        oldest = max(count for when, count in self._synced if when <= point)
        for version in self._versions[oldest:]:
            if version.point <= point:
                yield version.content

    def _read(self, path: str) -> Optional[bytes]:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            return file.read()
        return None


@contextlib.contextmanager
def logging_file(path: str, disk: VolatileDisk, names: Optional[Names] = None) -> Iterator[None]:
    """Log in a with block what this process does to the file at path, and to the name of another one."""

    def is_ours(fd: int) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(fd), os.stat(path))
        return False

    def pwritev(fd: int, views: Any, offset: int) -> int:
        if is_ours(fd):
            disk.write(offset, b"".join(views))
        return int(real["pwritev"](fd, views, offset))

    def pwrite(fd: int, data: Any, offset: int) -> int:
        if is_ours(fd):
            disk.write(offset, bytes(data))
        return int(real["pwrite"](fd, data, offset))

    def fsync(fd: int) -> None:
        if is_ours(fd):
            with disk.flushing():
                real["fsync"](fd)
            return
        real["fsync"](fd)
        folder = names and os.stat(os.path.dirname(names.path))
        if names and folder and os.path.samestat(os.fstat(fd), folder):
            names.note_sync(disk.note())

    def replace(source: Any, target: Any) -> None:
        real["replace"](source, target)
        if names and os.fspath(target) == names.path:
            names.note(disk.note())

    def unlink(target: Any) -> None:
        real["unlink"](target)
        if names and os.fspath(target) == names.path:
            names.note(disk.note())

    def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
        if is_ours(fd):
            disk.write(offset, bytes(length))
        return int(real_fallocate(fd, mode, offset, length))

    fakes = {"pwritev": pwritev, "pwrite": pwrite, "fsync": fsync, "replace": replace, "unlink": unlink}
    real = {name: getattr(os, name) for name in fakes}
    real_fallocate = zero._fallocate
    with contextlib.ExitStack() as stack:
        for name, fake in fakes.items():
            setattr(os, name, fake)
            stack.callback(setattr, os, name, real[name])
        stack.callback(setattr, zero, "_fallocate", real_fallocate)
        zero._fallocate = fallocate
        yield
