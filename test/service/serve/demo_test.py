"""The demo disk has a file system with a text in it; without mke2fs the text alone."""

import shutil
import subprocess

import pytest

from ovirt_imageio.qemu import img
from ovirt_imageio.service.serve import demo

pytestmark = pytest.mark.storage


def content(path):
    """Return the bytes of the disk in an image."""
    raw = f"{path}.bytes"
    img.convert(str(path), img.info(str(path))["format"], raw, "raw")
    with open(raw, "rb") as file:
        return file.read()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_file_system(tmp_path, format):
    path = tmp_path / "demo"
    demo.create(str(path), format)
    assert (img.info(str(path))["format"], img.info(str(path))["virtual-size"]) == (format, demo.SIZE)
    disk = content(path)
    assert demo.TEXT.encode() in disk
    # The magic number of ext4, in its superblock.
    assert disk[1024 + 0x38 : 1024 + 0x3A] == b"\x53\xef"
    # Small enough to be the first thing that a newcomer downloads.
    assert len(disk) == demo.SIZE


def test_text_can_be_read(tmp_path):
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin")
    if not debugfs:
        pytest.skip("no debugfs")
    demo.create(str(tmp_path / "demo.raw"), "raw")
    command = [debugfs, "-R", "cat /README.txt", str(tmp_path / "demo.raw")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == demo.TEXT


def test_without_mke2fs(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "make_file_system", lambda raw, folder: False)
    demo.create(str(tmp_path / "demo.raw"), "raw")
    assert content(tmp_path / "demo.raw").startswith(demo.TEXT.encode())


def test_no_program(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(demo, "ADMIN_FOLDERS", "/nowhere")
    assert not demo.make_file_system(tmp_path / "disk", tmp_path)
