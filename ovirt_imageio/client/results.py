"""What people read of what a command did: the lines of a result, or of a plan.

Pure: text from fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ovirt_imageio import units
from ovirt_imageio.errors import printable
from ovirt_imageio.geometry.extent import DirtyExtent, Extent

__all__ = ["EXTENTS_HEAD", "extent_line", "lines"]

Fields = Mapping[str, Any]

EXTENTS_HEAD = f"{'start':>16} {'length':>16}  content"


def extent_line(extent: Extent) -> str:
    """Return the line of an extent."""
    content = "zero" if extent.zero else "data"
    if isinstance(extent, DirtyExtent):
        content = f"dirty, {content}" if extent.dirty else "clean"
    elif extent.hole:
        content = "hole"
    return f"{extent.start:16} {extent.length:16}  {content}"


def lines(kind: str, fields: Fields) -> Iterator[str]:
    """Yield the lines of a result, a plan or a point in time; most results need none."""
    command = fields["command"]
    if kind == "point":
        yield from point_lines(fields)
    elif kind == "plan" and command == "backup-vm":
        yield from estimate_lines(fields)
    elif kind == "plan":
        yield from plan_lines(fields)
    elif command == "verify":
        yield f"The same: {fields['algorithm']} {fields['checksum']}"
    elif command == "upload-disk":
        yield f"Disk {fields['disk_id']}"
    elif command == "backup-vm":
        count = sum(disk["bytes"] for disk in fields["disks"])
        yield f"{fields['mode'].capitalize()} backup {fields['point']}: {disks(fields)}, {units.size(count)}"
    elif command == "restore":
        for disk in fields["disks"]:
            target = f"disk {disk['new_id']}" if disk["new_id"] else "the disk at the URL"
            yield f"Restored {disk['id']} ({printable(disk['name'])}) to {target}"


def disks(fields: Fields) -> str:
    """Return how many disks there are."""
    count = len(fields["disks"])
    return "1 disk" if count == 1 else f"{count} disks"


def point_lines(fields: Fields) -> Iterator[str]:
    """Yield a point, and its disks below it."""
    more = "".join([", quiesced" if fields["quiesced"] else "", "" if fields["checkpoint"] else ", no checkpoint"])
    yield f"{fields['name']}  {fields['mode']}{more}"
    for disk in fields["disks"]:
        sizes = f"{units.size(disk['bytes'])} of {units.size(disk['size'])}"
        yield f"    {disk['id']}  {disk['mode']:11}  {sizes}  {printable(disk['name'])}"


def estimate_lines(fields: Fields) -> Iterator[str]:
    """Yield what a backup of a virtual machine would copy."""
    for disk in fields["disks"]:
        last = f"; the last increment had {units.size(disk['last_bytes'])}" if disk["last_bytes"] is not None else ""
        yield (
            f"{disk['id']}  {disk['mode']:11}  at most {units.size(disk['bytes_at_most'])} of"
            f" {units.size(disk['size'])}{last}  {printable(disk['name'])}"
        )
    room = "enough" if fields["bytes_free"] >= fields["bytes_at_most"] else "perhaps not enough"
    total, free = units.size(fields["bytes_at_most"]), units.size(fields["bytes_free"])
    yield f"At most {total} in all; {printable(fields['folder'])} has {free} free, which is {room}"
    for path in fields["leftovers"]:
        yield f"Would delete {printable(path)}, which an unfinished backup left"


def plan_lines(fields: Fields) -> Iterator[str]:
    """Yield what a copy would replace."""
    size = f"{units.size(fields['size'])}: " if fields.get("size") is not None else ""
    what = f"would overwrite {printable(fields['replaces'])}" if fields["replaces"] else "would replace nothing"
    yield f"{size}{what}; nothing was done"
