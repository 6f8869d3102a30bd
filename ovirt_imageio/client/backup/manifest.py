"""What a folder with backups holds: points in time, and the disks of each.

    monday      full         A  B
    tuesday     incremental  A            A stands on that of monday
    wednesday   incremental  A  B         A stands on that of tuesday, B is full: the engine knew no checkpoint of it

A manifest that was read is good: names are names, and every increment stands on an earlier point. Nothing in it is a
path: where a disk is follows from the name of its point and its id. Pure: a document and questions about it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ovirt_imageio.errors import InvalidValue, printable

__all__ = ["FULL", "INCREMENTAL", "DiskCopy", "Machine", "Manifest", "Point", "is_point_name", "parse"]

FULL = "full"
INCREMENTAL = "incremental"

# A later version may mean something else by the same keys.
VERSION = 1

# A UTC time that sorts as text, and that every file system takes; a second one in the same second gets a number.
POINT_NAME = re.compile(r"\d{8}T\d{6}Z(-\d+)?", re.ASCII)
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Machine:
    """A virtual machine of an engine."""

    id: str
    name: str


@dataclass(frozen=True)
class DiskCopy:
    """A disk at one point. `base` is the point whose image of the disk this one stands on, None if it is complete.

    `size` is what a guest sees; `bytes` and `sha256` are those of the image file. `format` and `sparse` tell what the
    disk was in the engine.
    """

    id: str
    name: str
    size: int
    format: str
    sparse: bool
    base: Optional[str]
    bytes: int
    sha256: str

    @property
    def mode(self) -> str:
        """Is it complete, or an increment?"""
        return FULL if self.base is None else INCREMENTAL


@dataclass(frozen=True)
class Point:
    """All disks at one moment. `checkpoint` is what the engine calls it, None if it keeps none."""

    name: str
    checkpoint: Optional[str]
    quiesced: bool
    disks: tuple[DiskCopy, ...]

    @property
    def mode(self) -> str:
        """Are all disks complete?"""
        return INCREMENTAL if any(disk.base for disk in self.disks) else FULL

    def disk(self, disk_id: str) -> Optional[DiskCopy]:
        """Return a disk, None if it is not part of the point."""
        return next((disk for disk in self.disks if disk.id == disk_id), None)

    def choose(self, wanted: Sequence[str]) -> tuple[DiskCopy, ...]:
        """Return the disks with these ids or names, all of them for none. Raises InvalidValue."""
        return tuple(self._find(text) for text in dict.fromkeys(wanted)) if wanted else self.disks

    def _find(self, text: str) -> DiskCopy:
        found = [disk for disk in self.disks if text.lower() == disk.id] or [d for d in self.disks if d.name == text]
        if len(found) == 1:
            return found[0]
        names = ", ".join(f"{disk.id} ({printable(disk.name)})" for disk in found or self.disks)
        what = "one disk, by its id" if found else "a disk of the backup"
        raise InvalidValue("disk", text, f"{what}: {names}")


@dataclass(frozen=True)
class Manifest:
    """All points, the oldest first."""

    machine: Machine
    points: tuple[Point, ...] = ()

    def point(self, name: Optional[str] = None) -> Point:
        """Return the point of this name, or the last one. Raises InvalidValue."""
        if not self.points:
            raise InvalidValue("folder", "", "at least one backup that has finished")
        if name is None:
            return self.points[-1]
        for point in self.points:
            if point.name == name:
                return point
        raise InvalidValue("point", name, f"one of {', '.join(point.name for point in self.points)}")

    def chain(self, point: Point, disk: DiskCopy) -> list[tuple[Point, DiskCopy]]:
        """Return the images that a disk stands on, the complete one first, and then itself."""
        found = [(point, disk)]
        while disk.base is not None:
            point = self.point(disk.base)
            below = point.disk(disk.id)
            assert below is not None
            disk = below
            found.append((point, disk))
        return found[::-1]

    def name_for(self, time: str) -> str:
        """Return a name for a new point at a time."""
        taken = {point.name for point in self.points}
        name, number = time, 1
        while name in taken:
            number += 1
            name = f"{time}-{number}"
        return name

    def with_point(self, point: Point) -> Manifest:
        """Return the manifest with one more point."""
        return dataclasses.replace(self, points=(*self.points, point))

    def to_text(self) -> str:
        """Return the document."""
        points = [{**dataclasses.asdict(point), "mode": point.mode} for point in self.points]
        for item, point in zip(points, self.points):
            item["disks"] = [{**dataclasses.asdict(disk), "mode": disk.mode} for disk in point.disks]
        return (
            json.dumps({"version": VERSION, "vm": dataclasses.asdict(self.machine), "points": points}, indent=2) + "\n"
        )


def is_point_name(text: str) -> bool:
    """Could a point have this name?"""
    return POINT_NAME.fullmatch(text) is not None


def parse(text: str) -> Manifest:
    """Return the manifest in a document. Raises InvalidValue."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidValue("manifest", text[:20], "a JSON document") from None
    version = take(document, "version", int)
    if version != VERSION:
        raise InvalidValue("version of the manifest", version, f"{VERSION}; a newer ovirt-img may have written it")
    vm = take(document, "vm", dict)
    manifest = Manifest(Machine(take_id(vm, "id"), take(vm, "name", str)))
    for item in take(document, "points", list):
        manifest = manifest.with_point(parse_point(item, manifest))
    return manifest


def parse_point(document: Any, before: Manifest) -> Point:
    """Return a point that comes after those of a manifest."""
    name = take(document, "name", str, is_point_name)
    if any(point.name == name for point in before.points):
        raise InvalidValue("name in the manifest", name, "another one for each point")
    checkpoint = None if document.get("checkpoint") is None else take_id(document, "checkpoint")
    disks = tuple(parse_disk(item, before) for item in take(document, "disks", list))
    if not disks or len({disk.id for disk in disks}) != len(disks):
        raise InvalidValue("disks in the manifest", name, "at least one, and none twice")
    return Point(name, checkpoint, take(document, "quiesced", bool), disks)


def parse_disk(document: Any, before: Manifest) -> DiskCopy:
    """Return a disk of a point that comes after those of a manifest."""
    disk = DiskCopy(
        id=take_id(document, "id"),
        name=take(document, "name", str),
        size=take(document, "size", int, lambda value: value >= 0),
        format=take(document, "format", str, lambda value: value in ("raw", "qcow2")),
        sparse=take(document, "sparse", bool),
        base=None if document.get("base") is None else take(document, "base", str),
        bytes=take(document, "bytes", int, lambda value: value >= 0),
        sha256=take(document, "sha256", str, lambda value: SHA256.fullmatch(value) is not None),
    )
    if disk.base is not None and not any(point.name == disk.base and point.disk(disk.id) for point in before.points):
        raise InvalidValue("base in the manifest", disk.base, f"an earlier point with disk {disk.id}")
    return disk


def take(document: Any, key: str, kind: type, is_good: Callable[[Any], bool] = lambda value: True) -> Any:
    """Return what a key says. Raises InvalidValue unless it is of a kind, and good."""
    value = document.get(key) if isinstance(document, Mapping) else None
    # True is an int, too.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or not is_good(value):
        raise InvalidValue(f"{key} in the manifest", value, f"what ovirt-img writes there, of type {kind.__name__}")
    return value


def take_id(document: Any, key: str) -> str:
    """Return an id of the engine."""
    return str(take(document, key, str, lambda value: ID.fullmatch(value) is not None))
