"""Whatever is in an archive: a member lies within the file, or there is an error that names the file."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile

import pytest
from fuzz.archive_inputs import INPUTS
from fuzz.mutations import mutated
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.client import archive
from ovirt_imageio.client.archive import NotAnArchive
from ovirt_imageio.client.errors import MemberNotFound

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def make(format: str, size: int = 700, **changes: object) -> bytes:
    """Return an archive with a member "disk" whose header has these changes, behind one with a long name."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=FORMATS[format]) as tar:
        before = tarfile.TarInfo("folder/" + "n" * 90)
        before.size = 5
        tar.addfile(before, io.BytesIO(b"hello"))
        info = tarfile.TarInfo("disk")
        info.size = size
        for name, value in changes.items():
            setattr(info, name, value)
        tar.addfile(info, io.BytesIO(b"d" * info.size))
    return file.getvalue()


def verdict(data: bytes) -> str:
    """Return what becomes of an archive."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            member = archive.find(file.name, "disk")
        except (NotAnArchive, MemberNotFound) as error:
            assert file.name in str(error)
            return type(error).__name__
        assert 0 <= member.offset <= member.offset + member.size <= os.path.getsize(file.name)
        return "found"


@given(st.sampled_from([*FORMATS]), st.data())
def test_changed_archives(format, choices):
    verdict(mutated(make(format), choices.draw))


@given(st.sampled_from([*FORMATS]), st.integers(0, 511), st.binary(min_size=1, max_size=12))
def test_changed_headers(format, at, data):
    """A checksum does not hide what else is wrong: it is right again after the change."""
    archive = bytearray(make(format))
    start = archive.rindex(b"disk\0")
    archive[start + at : start + min(512, at + len(data))] = data[: 512 - at]
    header = archive[start : start + 148] + b" " * 8 + archive[start + 156 : start + 512]
    archive[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    verdict(bytes(archive))


KEYS = st.sampled_from(["size", "path", "linkpath", "mtime", "GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major"])


@given(st.dictionaries(KEYS, st.sampled_from(["", "-1", "1e9", "9" * 30, "disk", "0,1", "1", "\u05d3"]), max_size=3))
def test_attributes(attributes):
    verdict(make("pax", pax_headers=attributes))


@given(st.binary(max_size=1200))
def test_any_bytes(data):
    verdict(data)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name):
    changes, expected = INPUTS[name]
    assert verdict(make("pax", **changes)) in expected.split(" or ")
