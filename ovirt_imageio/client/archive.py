"""Find a disk inside a tar archive, such as an OVA: its bytes are used where they are.

Knows archives; knows nothing of image formats.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
from dataclasses import dataclass
from typing import NamedTuple, Optional

from ovirt_imageio.client.errors import Error, MemberNotFound

__all__ = ["Member", "NotAnArchive", "find"]

# An archive consists of blocks of this size; what follows the data of a member in its last block is zero.
BLOCK = 512

# Names and attributes of a member are in headers; those of real archives have some kilobytes.
MAX_HEADER = 1024 * 1024

# How compressed files begin.
MAGICS = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}


@dataclass(eq=False)
class NotAnArchive(Error, tarfile.ReadError):
    """A file is not an archive whose members can be used."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"Cannot use {self.path}: {self.why}"


class Member(NamedTuple):
    """Where the data of a member is in its archive."""

    offset: int
    size: int

    @property
    def padded_size(self) -> int:
        """The size in whole blocks: qemu cannot use less, and no image format minds zeroes at its end."""
        return self.size + -self.size % BLOCK


def find(path: str, name: str) -> Member:
    """Return where a member is. Raises NotAnArchive, or MemberNotFound."""
    try:
        with Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            found = last(archive, name)
            size = file.seek(0, os.SEEK_END)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        # What is not a number where one should be, and headers of headers of headers.
        raise NotAnArchive(path, f"{reason(path)}: {error}") from None
    if found is None:
        raise MemberNotFound(f"member {name!r} in {path}")
    if not found.isreg() or found.issparse():
        raise MemberNotFound(f"member {name!r} in {path} that is a plain file")
    if found.size < 0 or found.offset_data + found.size > size:
        raise NotAnArchive(path, f"it ends within member {name!r}")
    return Member(found.offset_data, found.size)


def last(archive: tarfile.TarFile, name: str) -> Optional[tarfile.TarInfo]:
    """Return the last member of this name: it replaces those before. The others are forgotten, however many."""
    found = None
    for member in archive:
        if member.name == name:
            found = member
        archive.members = []  # type: ignore[attr-defined]
    return found


class Headers(io.FileIO):
    """A file of which only small pieces are read: a header may say that it fills the memory."""

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """Read a piece. Raises tarfile.ReadError."""
        if size is None or not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError("a header is larger than any name")
        return super().read(size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place. Raises tarfile.ReadError where no file can have one."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise tarfile.ReadError("a member ends where no file does") from None


def reason(path: str) -> str:
    """Return why a file is not an archive that we can use."""
    with open(path, "rb") as file:
        head = file.read(8)
    for kind, magic in MAGICS.items():
        if head.startswith(magic):
            return f"it is compressed with {kind}, so nothing in it can be used in place; decompress it first"
    return "it is not a tar archive"
