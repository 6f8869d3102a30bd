"""Members of archives: where they are, and what cannot be used."""

from __future__ import annotations

import io
import tarfile

import pytest

from ovirt_imageio.client.archive import Member, NotAnArchive, find
from ovirt_imageio.client.errors import Error, MemberNotFound


def make(path, mode="w", **members: bytes) -> str:
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def test_find(tmp_path):
    path = make(tmp_path / "a.ova", first=b"a" * 700, second=b"b" * 512)
    for name, data in (("first", b"a" * 700), ("second", b"b" * 512)):
        member = find(path, name)
        with open(path, "rb") as file:
            file.seek(member.offset)
            assert file.read(member.size) == data


@pytest.mark.parametrize(("size", "padded"), [(0, 0), (1, 512), (512, 512), (196616, 197120)])
def test_size_is_padded_to_blocks(size, padded):
    assert Member(512, size).padded_size == padded


@pytest.mark.parametrize("name", ["none", "folder"])
def test_missing_member(tmp_path, name):
    path = make(tmp_path / "a.ova", first=b"a")
    with pytest.raises(MemberNotFound, match=name) as error:
        find(path, name)
    assert isinstance(error.value, KeyError)


@pytest.mark.parametrize(("mode", "kind"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_compressed(tmp_path, mode, kind):
    path = make(tmp_path / "a.tar", mode, first=b"a")
    with pytest.raises(NotAnArchive, match=f"compressed with {kind}") as error:
        find(path, "first")
    assert isinstance(error.value, tarfile.ReadError)


@pytest.mark.parametrize("size", ["9" * 15, "9" * 18, "9" * 30, "-1"])
def test_size_beyond_every_file(tmp_path, size):
    path = tmp_path / "a.ova"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("first")
        info.pax_headers = {"size": size}
        archive.addfile(info)
    # Newer Pythons find no member below nothing.
    with pytest.raises((NotAnArchive, MemberNotFound)):
        find(str(path), "first")


def test_no_archive(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"x" * 2000)
    with pytest.raises(NotAnArchive, match="not a tar archive") as error:
        find(str(path), "first")
    assert isinstance(error.value, Error)
