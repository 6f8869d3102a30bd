"""What a download writes to: made when that is allowed, and gone, or marked, when the download fails."""

from __future__ import annotations

import contextlib

import pytest

from ovirt_imageio import errors
from ovirt_imageio.client.errors import SizeMismatch
from ovirt_imageio.client.local import ImageFile
from ovirt_imageio.client.resume import Journal
from ovirt_imageio.client.target import QemuImage, partial
from ovirt_imageio.qemu import img

pytestmark = pytest.mark.storage

MIB = 1024**2


class Failure(Exception):
    """What ends a download."""


class Fake:
    """A target that is created, or not."""

    tag = None

    def __init__(self, path, error=None):
        self._path = path
        self._error = error

    def create(self):
        if self._error:
            raise self._error
        self._path.write_bytes(b"new")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image"


@pytest.fixture
def journal(path):
    return Journal(f"{path}.resume", {})


@pytest.mark.parametrize("format", ["qcow2", "raw", "vmdk"])
def test_qemu_image(path, format):
    target = QemuImage(ImageFile(str(path), format), MIB)
    target.create()
    with target.served(1) as open_disk, contextlib.closing(open_disk()) as disk:
        disk.write(4096, memoryview(b"a" * 4096))
        disk.flush()
    view = memoryview(bytearray(8192))
    with target.opened() as disk:
        assert disk.size() == MIB
        disk.readinto(0, view)
    assert bytes(view) == bytes(4096) + b"a" * 4096
    target.close()


def test_backing_file(path, tmp_path):
    base = tmp_path / "base"
    img.create(str(base), "qcow2", MIB)
    QemuImage(ImageFile(str(path), "qcow2"), MIB, str(base), "qcow2").create()
    assert img.info(str(path))["backing-filename"] == str(base)


def test_device_that_is_too_small(block_storage):
    with pytest.raises(SizeMismatch):
        QemuImage(ImageFile(block_storage.path, "raw"), 2**50).create()


def test_success_leaves_the_image(path):
    with partial(Fake(path), str(path), None):
        pass
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("before", [None, b"old"])
def test_failure_leaves_nothing(path, before):
    if before:
        path.write_bytes(before)
    with pytest.raises(Failure), partial(Fake(path), str(path), None):
        raise Failure
    assert not path.exists()


@pytest.mark.parametrize("resumable", [True, False])
def test_what_cannot_be_created_keeps_what_was_there(path, journal, resumable):
    path.write_bytes(b"precious")
    target = Fake(path, errors.BackendUnavailable("create", "in use"))
    refused = pytest.raises(errors.BackendUnavailable)
    with refused, partial(target, str(path), journal if resumable else None):
        raise AssertionError("never reached")
    assert path.read_bytes() == b"precious"
    assert [item.name for item in path.parent.iterdir()] == ["image"]


def test_failure_is_marked(path, journal):
    with pytest.raises(Failure), partial(Fake(path), str(path), journal):
        raise Failure
    assert path.read_bytes() == b"new"
    assert sorted(item.name for item in path.parent.iterdir()) == ["image", "image.resume"]
