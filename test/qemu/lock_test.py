"""The lock of an image: qemu respects ours, and we respect that of qemu."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess

import pytest

from ovirt_imageio import errors
from ovirt_imageio.qemu import img, lock
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "image.qcow2")
    img.create(path, "qcow2", 1024**2)
    return path


@contextlib.contextmanager
def opened(path):
    descriptor = os.open(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_others_stay_away_until_it_is_closed(path):
    with opened(path) as descriptor:
        lock.take(descriptor, path)
        with opened(path) as other, pytest.raises(errors.BackendUnavailable, match="another program uses"):
            lock.take(other, path)
        with pytest.raises(errors.BackendUnavailable, match="lock"):
            img.create(path, "qcow2", 1024**2)
        assert subprocess.run(["qemu-img", "check", path], capture_output=True).returncode != 0
    subprocess.run(["qemu-img", "check", path], capture_output=True, check=True)


@pytest.mark.parametrize("read_only", [True, False])
def test_an_image_that_qemu_uses(path, read_only):
    refused = pytest.raises(errors.BackendUnavailable, match="end that first")
    with QemuNbd(path, "qcow2", read_only=read_only), opened(path) as descriptor, refused:
        lock.take(descriptor, path)
    with opened(path) as descriptor:
        lock.take(descriptor, path)


def test_a_file_system_without_locks(path):
    # A descriptor for reading only cannot be locked for writing, which is another error than one of a lock.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError) as error:
            os.write(descriptor, b"")
        assert error.value.errno == errno.EBADF
        lock.take(descriptor, path)
    finally:
        os.close(descriptor)
