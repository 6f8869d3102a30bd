"""Images here: what they are, and disks that show what a guest would see.

    raw file, whole                         backends/file.py
    any other format, or inside an archive  qemu-nbd, and backends/nbd.py

Knows qemu; knows nothing of servers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.client import archive
from ovirt_imageio.client.errors import InvalidArgument
from ovirt_imageio.origin.url import is_url, without_secrets
from ovirt_imageio.qemu import img, references
from ovirt_imageio.qemu.nbd import QemuNbd
from ovirt_imageio.qemu.node import image_spec, location

__all__ = ["ImageFile", "check_path", "find", "info", "measure", "opened", "served"]

# What qemu rounds the size of a raw image up to.
SECTOR = 512


@dataclass(frozen=True)
class ImageFile:
    """A file, or a member of an archive, of a known format."""

    path: str
    format: str
    member: Optional[archive.Member] = None

    @property
    def is_plain(self) -> bool:
        """Are its bytes those that a guest sees?"""
        return self.format == "raw" and self.member is None and os.path.getsize(self.path) % SECTOR == 0


def find(
    path: str, member: Optional[str] = None, format: Optional[str] = None, *, backing_chain: bool = True
) -> ImageFile:
    """Return the image at path. Raises UnsafeImage if it uses a file that it should not; see references.py.

    Without a format qemu looks for one. A guest that owns a raw image can make it look like another format, which names
    any file of this host as its backing file: so a caller that knows that an untrusted image is raw should say so.
    """
    place = find_place(path, member)
    if format != "raw":
        told = look(path, place, format)
        references.check(path, told, img.info, is_member=place is not None, backing_chain=backing_chain)
        format = str(told["format"])
    return ImageFile(path, format, place)


def info(path: str, member: Optional[str] = None) -> dict[str, Any]:
    """Return what qemu-img knows, and where the member is."""
    place = find_place(path, member)
    return {**look(path, place), **place_keys(place)}


def measure(path: str, format: str, member: Optional[str] = None) -> dict[str, Any]:
    """Return how much space the image needs in another format, and where the member is."""
    place = find(path, member).member
    return {**img.measure(location_of(path, place), format), **place_keys(place)}


@contextlib.contextmanager
def served(
    image: ImageFile,
    *,
    writable: bool = False,
    connections: int = 1,
    backing_chain: bool = True,
    bitmap: Optional[str] = None,
) -> Iterator[Callable[[], Backend]]:
    """Serve an image in a with block; what it gives opens a disk each time it is called, `connections` at once."""
    if image.is_plain and bitmap is None:
        yield lambda: FileBackend(image.path, writable=writable, sparse=True, max_connections=connections)
        return
    server = QemuNbd(
        image.path,
        image.format,
        read_only=not writable,
        shared=connections,
        bitmap=bitmap,
        backing_chain=backing_chain,
        offset=image.member.offset if image.member else None,
        size=image.member.padded_size if image.member else None,
    )
    with server:
        yield lambda: NBDBackend(
            server.url, writable=writable, sparse=True, dirty=bitmap is not None, max_connections=connections
        )


@contextlib.contextmanager
def opened(image: ImageFile, bitmap: Optional[str] = None) -> Iterator[Backend]:
    """Open an image to look at it."""
    with served(image, bitmap=bitmap) as open_local, contextlib.closing(open_local()) as backend:
        yield backend


def find_place(path: str, member: Optional[str]) -> Optional[archive.Member]:
    """Return where the member is, None for the whole file.

    Raises errors.BackendUnavailable if there is no file, InvalidArgument for the URL of an image on a server.
    """
    check_path(path)
    if not os.path.exists(path):
        raise errors.BackendUnavailable("open the image", f"there is no {path}")
    return archive.find(path, member) if member is not None else None


def check_path(path: str) -> None:
    """Raise InvalidArgument, without the ticket, if path is the URL of an image on a server."""
    if is_url(path):
        expected = "a file here; only extents, checksum and verify look at servers"
        raise InvalidArgument("filename", without_secrets(path), expected)


def look(path: str, place: Optional[archive.Member], format: Optional[str] = None) -> dict[str, Any]:
    """Return what qemu-img knows of an image, whose format it finds when that is not known."""
    if place is None:
        return img.info(location(path), format)
    return img.info(image_spec(os.path.abspath(path), format, offset=place.offset, size=place.padded_size))


def location_of(path: str, place: Optional[archive.Member]) -> str:
    """Return what qemu-img calls the image."""
    return location(path, place.offset, place.padded_size) if place else location(path)


def place_keys(place: Optional[archive.Member]) -> dict[str, int]:
    """Return where a member is, with the names that callers know."""
    return {"member-offset": place.offset, "member-size": place.size} if place else {}
