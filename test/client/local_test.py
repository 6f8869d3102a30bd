"""Images here: how they are found and served."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from fakes.images import SIZE
from fakes.origin import DiskOrigin
from fakes.scripts import load

from ovirt_imageio import client, errors
from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.client import local
from ovirt_imageio.client.local import ImageFile
from ovirt_imageio.qemu import img

pytestmark = pytest.mark.storage

MiB = 1024**2


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(b"a" * 65536 + bytes(MiB - 65536))
    return path


@pytest.fixture
def qcow2(tmp_path):
    path = tmp_path / "disk.qcow2"
    img.create(str(path), "qcow2", MiB)
    return path


def read(image: ImageFile, length: int = 10) -> tuple[type, int, bytes]:
    with local.opened(image) as backend:
        view = memoryview(bytearray(length))
        backend.readinto(0, view)
        return type(backend), backend.size(), bytes(view)


def test_raw_file_is_read_without_qemu(raw):
    assert read(local.find(str(raw))) == (FileBackend, MiB, b"a" * 10)


def test_other_formats_are_read_through_qemu(qcow2):
    assert read(local.find(str(qcow2))) == (NBDBackend, MiB, bytes(10))


def test_raw_file_of_odd_size_is_what_qemu_says(tmp_path):
    path = tmp_path / "odd.raw"
    path.write_bytes(b"a" * 1000)
    assert read(local.find(str(path))) == (NBDBackend, 1024, b"a" * 10)


def test_known_format_is_not_looked_for(qcow2):
    assert read(ImageFile(str(qcow2), "raw"), 4)[2] == b"QFI\xfb"
    assert local.find(str(qcow2), format="raw").format == "raw"


def test_member(tmp_path, qcow2):
    path = tmp_path / "a.ova"
    data = qcow2.read_bytes()
    # No multiple of the blocks of an archive.
    odd = data[: len(data) - len(data) % 512] + b"\0" * 8
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("disk")
        info.size = len(odd)
        archive.addfile(info, io.BytesIO(odd))
    image = local.find(str(path), "disk")
    assert (image.format, image.member.size) == ("qcow2", len(odd))
    assert read(image) == (NBDBackend, MiB, bytes(10))
    found = local.info(str(path), "disk")
    assert (found["format"], found["member-size"], found["member-offset"]) == ("qcow2", len(odd), 512)
    assert local.measure(str(path), "raw", "disk")["member-size"] == len(odd)


def test_info_and_measure(qcow2):
    found = local.info(str(qcow2))
    assert (found["format"], found["virtual-size"]) == ("qcow2", MiB)
    assert "member-offset" not in found
    assert local.measure(str(qcow2), "raw")["required"] == MiB


def test_no_image(tmp_path):
    path = str(tmp_path / "none")
    for look in (local.find, local.info, lambda path: local.find(path, "member")):
        with pytest.raises(errors.BackendUnavailable, match="there is no"):
            look(path)
    with pytest.raises(errors.BackendUnavailable, match="there is no"):
        local.find(path, format="raw")


def test_damaged_image(qcow2):
    with open(qcow2, "r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 100)
    with pytest.raises(errors.BackendUnavailable):
        read(local.find(str(qcow2)))


def test_name_that_looks_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nbd:x").write_bytes(b"a" * 512)
    assert read(local.find("nbd:x"))[1] == 512


@pytest.mark.parametrize("name", ["raw", "qcow2"])
def test_several_at_once(name, request):
    path = request.getfixturevalue(name)
    image = ImageFile(str(path), name)
    with local.served(image, writable=True, connections=3) as open_local, contextlib.ExitStack() as s:
        disks = [s.enter_context(contextlib.closing(open_local())) for _ in range(3)]
        disks[0].write(MiB - 512, memoryview(b"z" * 512))
        view = memoryview(bytearray(512))
        disks[2].readinto(MiB - 512, view)
        assert bytes(view) == b"z" * 512


# Scripts, one for each way in which an image attacks the client that uploads it.
HOSTILE = sorted(Path(__file__).parent.joinpath("hostile", "images").glob("*.py"))

SECRET = b"SECRET" * 1000

# What an upload may take: buffers, and what Python itself needs.
MOST_MEMORY = 64 * MiB


def contents(folder):
    return {path: os.stat(path).st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_image_that_attacks(path, tmp_path):
    """Nothing but the image is read or written, with little memory, and the user learns why in one line."""
    # Names in images are replaced by names that must not be longer.
    secret = tmp_path / "s"
    folder = tmp_path / "folder"
    folder.mkdir()
    secret.write_bytes(SECRET.ljust(MiB, b"."))
    script = load(path)
    arguments = script.make(folder, secret)
    before = contents(tmp_path)
    tracemalloc.start()
    try:
        with DiskOrigin(bytes(getattr(script, "DISK", SIZE))) as origin:
            base, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            if script.EXPECTED is None:
                client.upload(url=origin.url, cafile=None, **arguments)
                assert any(origin.data[:4096])
            else:
                with pytest.raises(script.EXPECTED, match=script.MESSAGE) as error:
                    client.upload(url=origin.url, cafile=None, **arguments)
                assert str(error.value).isprintable()
            assert b"SECRET" not in origin.data
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - base < MOST_MEMORY
    assert contents(tmp_path) == before
