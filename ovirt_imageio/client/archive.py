"""Find a disk inside a tar archive, such as an OVA: its bytes are used where they are.

Knows archives; knows nothing of image formats.
"""

from __future__ import annotations

import tarfile
from typing import NamedTuple

from ovirt_imageio.client.errors import MemberNotFound, NotAnArchive

__all__ = ["Member", "find"]

# An archive consists of blocks of this size; what follows the data of a member in its last block is zero.
BLOCK = 512

# How compressed files begin.
MAGICS = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}


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
        with tarfile.open(path, "r:") as archive:
            found = archive.getmember(name)
    except KeyError:
        raise MemberNotFound(f"member {name!r} in {path}") from None
    except tarfile.TarError as error:
        raise NotAnArchive(path, f"{reason(path)}: {error}") from None
    if not found.isreg() or found.issparse():
        raise MemberNotFound(f"member {name!r} in {path} that is a plain file")
    return Member(found.offset_data, found.size)


def reason(path: str) -> str:
    """Return why a file is not an archive that we can use."""
    with open(path, "rb") as file:
        head = file.read(8)
    for kind, magic in MAGICS.items():
        if head.startswith(magic):
            return f"it is compressed with {kind}, so nothing in it can be used in place; decompress it first"
    return "it is not a tar archive"
