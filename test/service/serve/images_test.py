"""What is served, by the arguments of the user."""

import logging
import os
import subprocess

import pytest

from ovirt_imageio import errors
from ovirt_imageio.qemu import img
from ovirt_imageio.service.serve import images
from ovirt_imageio.service.serve.images import ServedImage, Wanted

needs_qemu = pytest.mark.storage

MiB = 1024**2


@needs_qemu
@pytest.mark.parametrize(
    "name, format, expected",
    [
        ("disk.qcow2", None, "qcow2"),
        ("disk.QCOW2", None, "qcow2"),
        ("disk.img", None, "raw"),
        ("disk", None, "raw"),
        ("disk.img", "qcow2", "qcow2"),
        ("disk.vmdk", None, "vmdk"),
    ],
)
def test_create(tmp_path, name, format, expected):
    path = str(tmp_path / name)
    assert images.find(Wanted(path, format, MiB)) == [ServedImage(path, expected, MiB)]


@needs_qemu
def test_demo(tmp_path):
    [found] = images.find(Wanted(str(tmp_path / "demo.qcow2"), demo=True))
    assert (found.name, found.format) == ("demo.qcow2", "qcow2")
    # It is there now, and stays as it is.
    before = os.stat(found.path)
    assert images.find(Wanted(found.path, demo=True)) == [found]
    assert os.stat(found.path).st_mtime_ns == before.st_mtime_ns


@needs_qemu
@pytest.mark.parametrize("wanted", [{"size": MiB}, {"demo": True}])
def test_name_with_a_colon(tmp_path, monkeypatch, wanted):
    """Such as a time; qemu would take it for a protocol."""
    monkeypatch.chdir(tmp_path)
    [found] = images.find(Wanted("disk-10:30.qcow2", **wanted))
    assert found.path == f"{tmp_path}/disk-10:30.qcow2"
    assert images.find(Wanted("disk-10:30.qcow2", read_only=True)) == [found]


@pytest.mark.parametrize("name", ["disk\x1b[31m", "two\nlines", os.fsdecode(b"disk-\xfc")])
def test_name_that_cannot_be_shown(tmp_path, name, caplog):
    (tmp_path / name).write_bytes(bytes(512))
    for wanted in (Wanted(f"{tmp_path}/{name}", as_file=True), Wanted(f"{tmp_path}/{name}", size=MiB)):
        with pytest.raises(errors.InvalidValue, match="expected a name in UTF-8 without control characters"):
            images.find(wanted)
    (tmp_path / "disk.iso").write_bytes(bytes(512))
    assert [image.name for image in images.find(Wanted(str(tmp_path), as_file=True))] == ["disk.iso"]
    assert "is not served: Invalid image" in caplog.text


@needs_qemu
def test_existing_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    img.create("disk", "qcow2", MiB)
    assert images.find(Wanted("disk", read_only=True)) == [ServedImage(str(tmp_path / "disk"), "qcow2", MiB)]


@needs_qemu
def test_size_of_an_existing_image(tmp_path, caplog):
    path = str(tmp_path / "disk.qcow2")
    images.find(Wanted(path, size=MiB))
    with caplog.at_level(logging.WARNING):
        images.find(Wanted(path, size=MiB))
        assert caplog.text == ""
        assert images.find(Wanted(path, size=2 * MiB))[0].size == MiB
    assert "has 1.00 MiB: --size is not used" in caplog.text


@needs_qemu
def test_misnamed_image(tmp_path, caplog):
    """It may be a damaged image, or a download that was cut."""
    path = tmp_path / "disk.qcow2"
    path.write_bytes(bytes(range(256)) * 16)
    assert images.find(Wanted(str(path)))[0].format == "raw"
    assert "disk.qcow2 is not a qcow2 image: its bytes are served as a raw disk" in caplog.text
    caplog.clear()
    images.find(Wanted(str(path), "raw"))
    assert caplog.text == ""


@needs_qemu
def test_image_that_names_something_else(tmp_path):
    """The author of an image chooses what qemu opens; see test/qemu/references_test.py."""
    path = str(tmp_path / "disk.qcow2")
    img.create(path, "qcow2", MiB)
    subprocess.run(["qemu-img", "rebase", "-u", "-F", "raw", "-b", "nbd://localhost:1", path], check=True)
    with pytest.raises(errors.UnsafeImage, match="something that is not a file, 'nbd://localhost:1'"):
        images.find(Wanted(path))
    # The bytes of the file do no harm.
    assert images.find(Wanted(path, as_file=True))[0].is_file


@needs_qemu
def test_image_on_another_one(tmp_path):
    img.create(str(tmp_path / "base"), "raw", MiB)
    path = str(tmp_path / "disk.qcow2")
    img.create(path, "qcow2", backing_file="base", backing_format="raw")
    assert images.find(Wanted(path)) == [ServedImage(path, "qcow2", MiB)]


@needs_qemu
def test_unknown_format(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match="Unknown file format 'zip'"):
        images.find(Wanted(str(tmp_path / "disk"), "zip", MiB))


def test_missing_image(tmp_path):
    with pytest.raises(errors.InvalidValue, match="add --size 10g, and it will be created"):
        images.find(Wanted(str(tmp_path / "disk")))


@pytest.mark.parametrize(
    "allowed, options, hint",
    [
        (os.R_OK, {}, "a file that you may write; add --read-only"),
        (0, {"read_only": True}, "a file that you may read; change its permissions"),
        (0, {"as_file": True}, "a file that you may read; change its permissions"),
        (0, {}, "a file that you may read; change its permissions"),
    ],
)
def test_no_permission(tmp_path, monkeypatch, allowed, options, hint):
    path = tmp_path / "disk"
    path.touch()
    # Root may do everything.
    monkeypatch.setattr(os, "access", lambda path, mode: mode & allowed == mode)
    with pytest.raises(errors.InvalidValue, match=hint):
        images.find(Wanted(str(path), **options))


# --- Files as they are ---


def test_file(tmp_path):
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"anything")
    [found] = images.find(Wanted(str(path), as_file=True))
    assert (found.path, found.size, found.is_file) == (str(path), 8, True)


@pytest.mark.parametrize("path", ["/dev/null", "empty"])
def test_no_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(errors.InvalidValue, match="a regular file that is not empty"):
        images.find(Wanted(path, as_file=True))


# --- Folders ---


@pytest.fixture
def folder(tmp_path):
    """A folder with two images, and what is lying around beside them."""
    img.create(str(tmp_path / "b.qcow2"), "qcow2", MiB)
    (tmp_path / "a.img").write_bytes(bytes(4096))
    (tmp_path / "notes.txt").write_text("no disk")
    (tmp_path / "cut.qcow2").write_bytes(b"QF" * 1000)
    (tmp_path / ".hidden.img").write_bytes(bytes(4096))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.img").write_bytes(bytes(4096))
    return tmp_path


@needs_qemu
def test_folder(folder, caplog):
    found = images.find(Wanted(str(folder)))
    assert found == [
        ServedImage(str(folder / "a.img"), "raw", 4096),
        ServedImage(str(folder / "b.qcow2"), "qcow2", MiB),
    ]
    [warning] = caplog.messages
    assert warning.endswith("cut.qcow2 is not served: it is not a qcow2 image")


@needs_qemu
def test_folder_of_files(folder):
    found = images.find(Wanted(str(folder), as_file=True))
    assert [image.name for image in found] == ["a.img", "b.qcow2", "cut.qcow2", "notes.txt"]


@needs_qemu
def test_folder_with_an_image_that_cannot_be_read(folder, caplog):
    os.symlink("/nowhere", folder / "dangling.img")
    # qemu-img says so.
    (folder / "damaged.qcow2").write_bytes(b"QFI\xfb\0\0\0\x63" + bytes(100))
    assert [image.name for image in images.find(Wanted(str(folder)))] == ["a.img", "b.qcow2"]
    assert "damaged.qcow2 is not served" in caplog.text


def test_folder_without_images(tmp_path):
    with pytest.raises(errors.InvalidValue, match="a folder with disk images in it"):
        images.find(Wanted(str(tmp_path)))


def test_folder_cannot_be_created(tmp_path):
    with pytest.raises(errors.InvalidValue, match="but it is a folder"):
        images.find(Wanted(str(tmp_path), size=MiB))
