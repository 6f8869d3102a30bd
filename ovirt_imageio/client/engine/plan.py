"""What disk a file needs.

Knows files and qemu-img; knows nothing of the engine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional

from ovirt_imageio.client import api
from ovirt_imageio.client.errors import InvalidArgument

__all__ = ["Plan", "make_plan"]

# Where an ISO 9660 image has its first volume descriptor, and how that begins.
ISO_OFFSET = 0x8000
ISO_MAGIC = b"\1CD001\1\0"

FORMATS = ("raw", "qcow2")


@dataclass(frozen=True)
class Plan:
    """A disk for a file: its format, what a guest sees of it, and what it takes when it is new."""

    source_format: str
    format: str
    size: int
    # Only disks that grow have one.
    initial_size: Optional[int]
    is_sparse: bool
    is_iso: bool

    @property
    def reads_as_zero(self) -> bool:
        """Does the new disk read as zero? A preallocated raw one on block storage has what was there before."""
        return self.format == "qcow2" or self.is_sparse


def make_plan(filename: str, format: str, *, is_preallocated: bool) -> Plan:
    """Return the disk for a file. An ISO is always a preallocated raw disk. Raises InvalidArgument."""
    info = api.info(filename)
    source_format = info["format"]
    if source_format not in FORMATS:
        raise InvalidArgument("format of the image", source_format, "raw or qcow2; convert it with qemu-img")
    is_iso = source_format == "raw" and has_iso_magic(filename)
    if is_iso:
        format, is_preallocated = "raw", True
    grows = format == "qcow2" and not is_preallocated
    initial_size = api.measure(filename, "qcow2")["required"] if grows else None
    return Plan(source_format, format, info["virtual-size"], initial_size, not is_preallocated, is_iso)


def has_iso_magic(filename: str) -> bool:
    """Does the file look like an ISO 9660 image?"""
    descriptor = os.open(filename, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, len(ISO_MAGIC), ISO_OFFSET) == ISO_MAGIC
    finally:
        os.close(descriptor)
