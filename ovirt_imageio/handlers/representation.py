"""What a download of /images/TICKET may look like: the bytes of the disk, or, with ?format=qcow2, an image of its data.

Either has a length, a validator and ranges of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, NamedTuple, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.use import Use
from ovirt_imageio.geometry import byteranges
from ovirt_imageio.geometry.qcow2 import MAX_DISK, Qcow2Layout
from ovirt_imageio.handlers import parse
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.ops import operations
from ovirt_imageio.ops.compact import ReadQcow2
from ovirt_imageio.relay import Sink

__all__ = ["Representation", "represent"]

# How the name of an image of the disk may end.
SUFFIXES = (".raw", ".img", ".qcow2")


class Representation(NamedTuple):
    """The content of one answer, or a part of it."""

    length: int
    # Strong: the same while the content is.
    etag: str
    filename: Optional[str]
    # Makes the operation that sends `length` bytes at `offset`.
    read: Callable[[Sink, int, int], operations.Operation]

    def describe(self, response: Response) -> None:
        """Tell a downloader what it gets: a file with a name, of which it may ask for ranges."""
        headers = response.headers
        headers["accept-ranges"] = "bytes"
        headers["etag"] = self.etag
        headers["content-disposition"] = byteranges.content_disposition(self.filename)


def represent(request: Request, disk: Use) -> Representation:
    """Return what the request asks for; the layout of an image takes a look at the whole disk."""
    if not request.query_string:
        return raw(disk)
    return parse.choice(request, "format", MAKERS, default=raw)(disk)


def raw(disk: Use) -> Representation:
    """Return the bytes of the disk."""

    def read(sink: Sink, offset: int, length: int) -> operations.Operation:
        return operations.Read(disk.backend, sink, offset, length)

    return Representation(disk.size, f'"{disk.content_tag}"', disk.ticket.filename, read)


def qcow2(disk: Use) -> Representation:
    """Return an image of the data of the disk."""
    size = disk.size
    if size > MAX_DISK:
        raise errors.InvalidValue("format", "qcow2", f"raw: a disk of {size} bytes is too large for this format")
    # The tag is older than the extents: if the disk changes from now on, the tag will.
    tag = disk.content_tag
    layout = Qcow2Layout(size)
    disk.run(operations.Extents(disk.backend, layout.add, length=size))

    def read(sink: Sink, offset: int, length: int) -> operations.Operation:
        return ReadQcow2(disk.backend, sink, layout, offset, length)

    return Representation(layout.length, f'"{tag}-{layout.tag}"', qcow2_name(disk.ticket.filename), read)


def qcow2_name(filename: Optional[str]) -> Optional[str]:
    """Return the name of an image of a disk whose ticket names a file.

    >>> qcow2_name("disk.raw"), qcow2_name("disk"), qcow2_name("disk.qcow2")
    ('disk.qcow2', 'disk.qcow2', 'disk.qcow2')
    """
    if not filename:
        return None
    suffix = next((suffix for suffix in SUFFIXES if filename.lower().endswith(suffix)), "")
    return filename[: len(filename) - len(suffix)] + ".qcow2"


MAKERS: Mapping[str, Callable[[Use], Representation]] = {"raw": raw, "qcow2": qcow2}
