"""The files: one program at a time, and a point that is there as a whole or not at all, whenever the program dies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys

import pytest

from ovirt_imageio.client.backup.folder import Folder, digest, image_name
from ovirt_imageio.client.backup.manifest import DiskCopy, Machine, Manifest, Point
from ovirt_imageio.client.errors import BackupDamaged
from ovirt_imageio.errors import BackendUnavailable, InvalidValue, StorageError

ID = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
NAMES = ["20261129T205401Z", "20261130T205401Z"]


def add(folder, manifest, name, base=None):
    """Add a point with one disk."""
    data = name.encode()
    with folder.partial(name, "backup-1") as place:
        (place / image_name(ID)).write_bytes(data)
        copy = DiskCopy(ID, "system", 4096, "qcow2", True, base, len(data), hashlib.sha256(data).hexdigest())
        return folder.add(manifest, Point(name, None, False, (copy,)), place)


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "backups"))


@pytest.fixture
def manifest(folder):
    """The manifest of a folder with one point."""
    with folder.locked():
        return add(folder, Manifest(Machine(ID, "web")), NAMES[0])


def test_add(folder, manifest):
    assert folder.read() == manifest
    with folder.locked():
        both = add(folder, manifest, NAMES[1], base=NAMES[0])
    assert folder.read() == both
    assert sorted(os.listdir(folder.path)) == [".lock", *NAMES, "manifest.json"]
    assert os.listdir(folder.path / NAMES[1]) == [image_name(ID)]
    last = both.point()
    folder.check(both, last, last.disks[0])


def test_new_folder(folder):
    assert folder.read() is None
    assert folder.leftovers(None) == []
    with folder.locked():
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert folder.read() is None


def test_failure_leaves_nothing(folder, manifest):
    with folder.locked(), pytest.raises(KeyboardInterrupt), folder.partial(NAMES[1], "backup-2") as place:
        (place / "image").write_bytes(b"half")
        raise KeyboardInterrupt
    assert folder.leftovers(manifest) == []
    assert folder.read() == manifest


def test_two_at_once(folder):
    with (
        folder.locked(),
        pytest.raises(BackendUnavailable, match="another backup to it is running"),
        Folder(str(folder.path)).locked(),
    ):
        pass
    with folder.locked():
        pass


def test_folder_of_somebody_else(folder):
    folder.path.mkdir()
    (folder.path / "letter").touch()
    with pytest.raises(InvalidValue, match="expected a new or empty one"), folder.locked():
        pass
    assert os.listdir(folder.path) == ["letter"]


# Not even root may write there.
@pytest.mark.parametrize("path", ["/sys/backups", "/proc/self/backups", "/dev/null/backups"])
def test_folder_that_cannot_be_written(path):
    with pytest.raises(StorageError, match=f"write to {path}"), Folder(path).locked():
        pass


@pytest.mark.parametrize("text", ["", "{}", "\udcff"])
def test_manifest_is_damaged(folder, manifest, text):
    (folder.path / "manifest.json").write_text(text, errors="surrogateescape")
    with pytest.raises(BackupDamaged, match=r"manifest\.json is damaged: "):
        folder.read()


def test_image_is_damaged(folder, manifest):
    point = manifest.point()
    path = folder.image(point, point.disks[0])
    for damage, text in [(b"X" * 16, "its SHA-256 is "), (b"X", "it has 1 bytes, not 16"), (None, "No such file")]:
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(BackupDamaged, match=text):
            folder.check(manifest, point, point.disks[0])


def test_leftovers(folder, manifest):
    left = [folder.path / f"{NAMES[1]}.partial", folder.path / NAMES[1]]
    for path in left:
        path.mkdir()
    (left[0] / "backup-id").write_text("backup-3")
    assert folder.leftovers(manifest) == sorted(left)
    assert [folder.backup_of(path) for path in left] == ["backup-3", None]
    for path in left:
        folder.remove(path)
    assert folder.leftovers(manifest) == []


def test_killed_at_any_moment(folder, manifest):
    """After each step of a backup that could be its last, the old point is there, or both are."""
    seen = set()
    for number in range(1, 1000):
        status = run_until(number, folder, manifest)
        found = folder.read()
        assert found.points[0] == manifest.points[0]
        for point in found.points:
            folder.check(found, point, point.disks[0])
        seen.add((len(found.points), len(folder.leftovers(found))))
        if status == 0:
            break
        assert status == signal.SIGKILL
        reset(folder, manifest)
    assert status == 0
    assert seen == {(1, 0), (1, 1), (2, 0)}


def run_until(number, folder, manifest):
    """Add a point in another process, which is killed when it has done so many things to files; return its status."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            events = iter(range(1, number))

            def hook(name, arguments):
                if name.startswith(("open", "os.")) and next(events, None) is None:
                    signal.raise_signal(signal.SIGKILL)

            sys.addaudithook(hook)
            with folder.locked():
                add(folder, manifest, NAMES[1], base=NAMES[0])
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1]


def reset(folder, manifest):
    """Do what the next backup would."""
    for leftover in folder.leftovers(folder.read()):
        folder.remove(leftover)
    if folder.read() != manifest:
        folder.remove(folder.path / NAMES[1])
        (folder.path / "manifest.json").write_text(manifest.to_text())


def test_digest(tmp_path):
    path = tmp_path / "file"
    data = os.urandom(3 * 1024**2 + 1)
    path.write_bytes(data)
    assert digest(path) == hashlib.sha256(data).hexdigest()
