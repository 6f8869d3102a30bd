"""Disks of a real daemon that hang on demand, as a file on NFS does whose server is gone.

    storage = hanging.Storage(tmp_path)
    with daemon.running(tmp_path, environ=storage.environ):
        storage.hang()          # from now on a thread that touches a disk below storage.folder waits for good
        storage.wait(1)         # until a thread does
        storage.go_on()

Each call of the daemon for such a disk waits for a lock of ours first. A file system that hangs would be more real, but
who waits for one that does not answer can neither be killed nor frozen, and takes the machine along.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fakes.waiting import wait_until

__all__ = ["Storage"]

# Found by the interpreter of the daemon when it starts.
PATCH = """\
import fcntl
import functools
import os

from ovirt_imageio.storage import direct

FOLDER = {folder!r}


def touch(path):
    if not os.path.realpath(path).startswith(FOLDER):
        return
    with open({lock!r}) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            with open({waiting!r}, "a") as waiting:
                waiting.write(".")
            fcntl.flock(lock, fcntl.LOCK_SH)


def slow(method):
    @functools.wraps(method)
    def wrapper(self, *args):
        touch("/proc/self/fd/%d" % self.fd)
        return method(self, *args)

    return wrapper


for name in "read", "write", "write_cached", "flush", "close":
    setattr(direct.DirectFile, name, slow(getattr(direct.DirectFile, name)))


def opening(open_file):
    def wrapper(path, **options):
        touch(path)
        return open_file(path, **options)

    return wrapper


direct.open_file = opening(direct.open_file)
"""


class Storage:
    """What is below `folder` hangs between hang() and go_on()."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "hanging"
        self.folder.mkdir()
        self._waiting = base / "waiting"
        self._waiting.touch()
        code = base / "code"
        code.mkdir()
        lock = base / "lock"
        names = {"folder": str(self.folder.resolve()), "lock": str(lock), "waiting": str(self._waiting)}
        (code / "sitecustomize.py").write_text(PATCH.format(**names))
        self._lock = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._path = str(code)

    @property
    def environ(self) -> dict[str, str]:
        """What a daemon must be started with."""
        return {"PYTHONPATH": os.pathsep.join((self._path, str(Path(__file__).resolve().parents[2])))}

    def hang(self) -> None:
        """Let nothing come to an end."""
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def wait(self, count: int = 1) -> None:
        """Wait until so many calls hung since the beginning."""
        wait_until(lambda: len(self._waiting.read_bytes()) >= count)

    def go_on(self) -> None:
        """Let all that go on."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._lock)
