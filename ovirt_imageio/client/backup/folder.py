"""The files of a folder with backups: one program at a time, and each point as a whole or not at all.

    1  DIR/NAME.partial/       images are written, and flushed
    2  DIR/NAME/               ... and get their name together
    3  DIR/manifest.json       a new one replaces the old one: from here on the point is there

A program that dies in the middle leaves what the manifest does not name; the next backup deletes that. Knows files;
knows nothing of engines and servers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from ovirt_imageio.client.backup import manifest as manifests
from ovirt_imageio.client.backup.manifest import DiskCopy, Manifest, Point
from ovirt_imageio.client.errors import BackupDamaged
from ovirt_imageio.errors import BackendUnavailable, Error, InvalidValue, storage_error

__all__ = ["Folder", "backing_name", "digest", "flush", "image_name", "writing"]

MANIFEST = "manifest.json"
LOCK = ".lock"
PARTIAL = ".partial"
# The id of the backup in the engine, as long as it has not finished.
BACKUP_ID = "backup-id"

CHUNK = 1024 * 1024


class Folder:
    """A folder with backups; one that is written to is locked by the with block of locked().

    Threads: one.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only program that writes, in a with block; a new folder is made.

        Raises InvalidValue, BackendUnavailable.
        """
        with writing(f"write to {self.path}"):
            if not self.path.is_dir():
                # A user that may read a disk reads all secrets on it.
                self.path.mkdir(mode=0o700)
                flush(self.path.absolute().parent)
            self._check_strangers()
            lock = open(self.path / LOCK, "a")  # noqa: SIM115  (closed below)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackendUnavailable(f"write to {self.path}", "another backup to it is running") from None
            yield

    def _check_strangers(self) -> None:
        """Raise InvalidValue for a folder that holds something else."""
        names = {item.name for item in self.path.iterdir()}
        if MANIFEST not in names and not all(name == LOCK or self._is_left(name) for name in names):
            raise InvalidValue("folder", str(self.path), f"a new or empty one, or one with a {MANIFEST}")

    def read(self) -> Optional[Manifest]:
        """Return the manifest, None if there is none. Raises BackupDamaged."""
        try:
            text = (self.path / MANIFEST).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise BackupDamaged(str(self.path / MANIFEST), str(error)) from error
        try:
            return manifests.parse(text)
        except InvalidValue as error:
            raise BackupDamaged(str(self.path / MANIFEST), str(error)) from None

    def image(self, point: Point, disk: DiskCopy) -> Path:
        """Return where the image of a disk is."""
        return self.path / point.name / image_name(disk.id)

    def check(self, manifest: Manifest, point: Point, disk: DiskCopy) -> None:
        """Raise BackupDamaged unless the images of a disk at a point are what they were."""
        for lower, copy in manifest.chain(point, disk):
            path = self.image(lower, copy)
            try:
                length = path.stat().st_size
                found = digest(path) if length == copy.bytes else ""
            except OSError as error:
                raise BackupDamaged(str(path), error.strerror or str(error)) from error
            if length != copy.bytes:
                raise BackupDamaged(str(path), f"it has {length} bytes, not {copy.bytes}")
            if found != copy.sha256:
                raise BackupDamaged(str(path), f"its SHA-256 is {found}, not {copy.sha256}")

    def leftovers(self, manifest: Optional[Manifest]) -> list[Path]:
        """Return what backups left that have not finished."""
        known = {point.name for point in manifest.points} if manifest else set()
        if not self.path.is_dir():
            return []
        return sorted(
            item
            for item in self.path.iterdir()
            if item.is_dir() and self._is_left(item.name) and item.name not in known
        )

    def _is_left(self, name: str) -> bool:
        return manifests.is_point_name(name.removesuffix(PARTIAL))

    def backup_of(self, leftover: Path) -> Optional[str]:
        """Return the id in the engine of a backup that has not finished, None if it did not come so far."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (leftover / BACKUP_ID).read_text(encoding="ascii").strip() or None
        return None

    def remove(self, leftover: Path) -> None:
        """Delete what a backup left."""
        with writing(f"delete {leftover}"):
            shutil.rmtree(leftover)

    @contextlib.contextmanager
    def partial(self, name: str, backup_id: str) -> Iterator[Path]:
        """Make the place for the images of a new point; it is deleted when the with block fails."""
        place = self.path / f"{name}{PARTIAL}"
        with writing(f"write to {self.path}"):
            place.mkdir()
        try:
            with writing(f"write to {self.path}"):
                (place / BACKUP_ID).write_text(backup_id, encoding="ascii")
            yield place
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise

    def add(self, manifest: Manifest, point: Point, place: Path) -> Manifest:
        """Make a partial point one that is there; return the new manifest."""
        with writing(f"write to {self.path}"):
            (place / BACKUP_ID).unlink()
            for disk in point.disks:
                flush(place / image_name(disk.id))
            flush(place)
            os.rename(place, self.path / point.name)
            # The manifest must not be there before what it tells of.
            flush(self.path)
            added = manifest.with_point(point)
            replace(self.path / MANIFEST, added.to_text())
        return added


def image_name(disk_id: str) -> str:
    """Return the name of the file with a disk. The name of a disk may hold anything, and two may have the same."""
    return f"{disk_id}.qcow2"


def backing_name(base: Optional[str], disk_id: str) -> Optional[str]:
    """Return what an image of a disk calls the one at the point below it; relative, so that the folder can be moved."""
    return None if base is None else f"../{base}/{image_name(disk_id)}"


def replace(path: Path, text: str) -> None:
    """Replace a file, so that a reader finds the old text or the new one."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(path: Path) -> None:
    """Let a file or a folder be on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, as sha256sum prints it."""
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        view = memoryview(bytearray(CHUNK))
        while count := file.readinto(view):
            found.update(view[:count])
    return found.hexdigest()


@contextlib.contextmanager
def writing(operation: str) -> Iterator[None]:
    """Turn errors of the system into ours."""
    try:
        yield
    except Error:
        raise
    except OSError as error:
        raise storage_error(operation, error) from error
