"""Real storage for tests: block devices and file systems on loop devices with sectors of 512 and 4096 bytes.

    name         kind    sector   what it is good for
    block-512    block      512   raw devices, direct I/O, BLKZEROOUT
    block-4k     block     4096   ... with big sectors
    ext4-512     ext4       512   files, holes
    ext4-4k      ext4      4096
    xfs-512      xfs        512
    xfs-4k       xfs       4096
    ext2-512     ext2       512   files without fallocate

A test asks for one of the fixtures in test/conftest.py, and runs once for each storage of its kind:

    def test_zero_keeps_neighbours(block_storage): ...    # both block devices, empty
    def test_holes(file_storage): ...                     # a fresh path on ext4 and xfs, nothing there yet
    def test_no_fallocate(ext2_storage): ...              # a fresh path on ext2
    def test_write(any_storage): ...                      # all of the above

    any_storage.path          str: the device, or where to create the file; its folder belongs to the test
    any_storage.kind          "block", "ext4", "xfs", "ext2"
    any_storage.sector_size   512 or 4096
    any_storage.name          as in the table

Such a test gets the mark `storage` by itself, and is skipped with the reason when the storage could not be made.
Outside of tests, `with using("xfs-4k") as storage:` is the same. Block devices are locked while a test has one, so
several test runs may share them.

`make storage` creates it all once, and again when a reboot lost the devices; `make clean-storage` deletes it. It lives
in $IMAGEIO_STORAGE, by default in /var/tmp/imageio-storage.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import userstorage

__all__ = ["ANY", "BLOCK", "EXT2", "FILE", "Missing", "Storage", "create", "delete", "using"]

BASE = Path(os.environ.get("IMAGEIO_STORAGE", "/var/tmp/imageio-storage"))

BLOCK = ("block-512", "block-4k")
FILE = ("ext4-512", "ext4-4k", "xfs-512", "xfs-4k")
EXT2 = ("ext2-512",)
ANY = BLOCK + FILE + EXT2

# Backing files are sparse, so big ones cost nothing; xfs refuses to be smaller than 300 MiB.
BLOCK_SIZE = 256 * 1024**2
FILE_SYSTEM_SIZE = 1024**3

SECTOR_SIZES = {"512": 512, "4k": 4096}


class Missing(Exception):
    """The storage is not there; the message says why."""


class Storage(NamedTuple):
    """One storage that a test may do with what it wants."""

    name: str
    kind: str
    sector_size: int
    path: str


@contextlib.contextmanager
def using(name: str) -> Iterator[Storage]:
    """Give one storage, empty, for the time of a test. Raises Missing when it cannot be used."""
    backend = backend_of(name)
    kind = kind_of(name)
    if not is_usable(name):
        raise Missing(f"no {name} storage: {why_not(name)}")
    if kind == "block":
        with locked(backend.path):
            backend.setup()
            yield Storage(name, kind, backend.sector_size, backend.path)
    else:
        with tempfile.TemporaryDirectory(prefix="test-", dir=backend.path) as folder:
            yield Storage(name, kind, backend.sector_size, os.path.join(folder, "disk"))


def create() -> None:
    """Create what does not exist; what this system cannot have is reported, and remembered for the tests that skip."""
    BASE.mkdir(parents=True, exist_ok=True)
    if not os.access(BASE, os.W_OK):
        print(f"No storage for tests: {BASE} belongs to another user, set IMAGEIO_STORAGE", file=sys.stderr)
        return
    with locked(str(BASE)):
        missing = [name for name in ANY if not is_usable(name)]
        if missing and not may_create():
            for name in missing:
                reason_path(name).write_text("creating it takes root, or sudo without a password")
            print("No storage for tests: creating it takes root, or sudo without a password", file=sys.stderr)
            return
        for name in missing:
            create_one(name)


def may_create() -> bool:
    """Return True if this user is root, may become root, or can be asked for the password."""
    if os.geteuid() == 0 or sys.stdin.isatty():
        return True
    return subprocess.run(["sudo", "--non-interactive", "true"], stderr=subprocess.DEVNULL).returncode == 0


def create_one(name: str) -> None:
    """Create one storage that is not there."""
    reason_path(name).unlink(missing_ok=True)
    forget_lost_device(name)
    try:
        backend_of(name).create()
    except (userstorage.Error, subprocess.CalledProcessError, OSError) as error:
        reason_path(name).write_text(f"{error}\n")
        print(f"No storage {name} for tests: {error}", file=sys.stderr)


def delete() -> None:
    """Delete everything that create() made."""
    for name in ANY:
        forget_lost_device(name)
        backend_of(name).delete()
        reason_path(name).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        BASE.rmdir()


def backend_of(name: str) -> userstorage.LoopDevice | userstorage.Mount:
    """Return what creates this storage."""
    kind = kind_of(name)
    size = BLOCK_SIZE if kind == "block" else FILE_SYSTEM_SIZE
    loop = userstorage.LoopDevice(str(BASE), name, size, sector_size=SECTOR_SIZES[name.split("-")[1]])
    return loop if kind == "block" else userstorage.Mount(loop, fstype=kind)


def kind_of(name: str) -> str:
    """Return the kind that is part of the name."""
    return name.split("-")[0]


def is_usable(name: str) -> bool:
    """Return True if the storage exists and this user may write to it."""
    if not is_our_device(name):
        return False
    backend = backend_of(name)
    return backend.exists() and os.access(backend.path, os.W_OK)


def is_our_device(name: str) -> bool:
    """Return True if the loop device is attached to our backing file.

    After a reboot the link remains, and the device that it names may be lost, or have another owner.
    """
    device = os.path.basename(os.path.realpath(BASE / f"{name}-loop"))
    try:
        attached = Path(f"/sys/block/{device}/loop/backing_file").read_text().rstrip("\n")
    except OSError:
        return False
    return attached == str(BASE.resolve() / f"{name}-backing")


def forget_lost_device(name: str) -> None:
    """Remove a link to a device that is not ours (any more), before it is believed."""
    if not is_our_device(name):
        (BASE / f"{name}-loop").unlink(missing_ok=True)


def why_not(name: str) -> str:
    """Return why the storage cannot be used."""
    try:
        return reason_path(name).read_text().strip()
    except OSError:
        return "run 'make storage' as a user who may create loop devices"


def reason_path(name: str) -> Path:
    """Return the file that remembers why a storage could not be created."""
    return BASE / f"{name}-missing"


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a device or folder, so that test runs at the same time take turns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    {"create": create, "delete": delete}[sys.argv[1]]()
