"""Images that attack: written with the tools of qemu, then changed in places where these would never write."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
from pathlib import Path

__all__ = ["BOMB", "SIZE", "VMDK", "archive", "patch", "qcow2", "rebase", "replace"]

SIZE = 1024**2
BOMB = 128 * 1024**2

# A disk of another format, whose only part is a file.
VMDK = """\
# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
RW 2048 FLAT "%s" 0
ddb.adapterType = "ide"
"""


def qcow2(path: Path, *options: str, size: int = SIZE) -> Path:
    """Create a qcow2 image with options of its format."""
    flags = ["-o", ",".join(options)] if options else []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *flags, str(path), str(size)], check=True)
    return path


def rebase(path: Path, backing: str, format: str = "raw") -> Path:
    """Let a qcow2 image name a backing file, which need not exist."""
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", format, "-b", backing, str(path)], check=True)
    return path


def replace(path: Path, old: str, new: str) -> Path:
    """Replace a name in an image, whose length is told before it, by one that is padded with slashes to its length."""
    data = path.read_bytes()
    assert data.count(old.encode()) == 1
    assert len(new) <= len(old)
    path.write_bytes(data.replace(old.encode(), new.rjust(len(old), "/").encode()))
    return path


def patch(path: Path, offset: int, form: str, value: int) -> Path:
    """Write a number, big endian, as struct names its form, into a header."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(f">{form}", value))
    return path


def archive(path: Path, **members: bytes) -> Path:
    """Make an archive."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
