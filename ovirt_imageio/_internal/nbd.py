"""Look at an NBD export, under the name and in the way that the tests of deployed vdsm versions know.

    with nbd.open(urlparse("nbd:unix:/path"), dirty=True) as client:
        data = client.read(0, 512)
        extents = client.extents(0, client.export_size)

New code uses `ovirt_imageio.nbd.connect` and `ovirt_imageio.nbd.status`.
"""

from __future__ import annotations

import urllib.parse
from typing import NamedTuple, Optional, Union

from ovirt_imageio.nbd import address, client, status, wire
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.handshake import Export

__all__ = ["Client", "Extent", "open"]


class Extent(NamedTuple):
    """`length` bytes, and what one context says of them.

    zero: base:allocation. dirty: a bitmap. hole: qemu:allocation-depth; no layer of the image allocates them.
    """

    length: int
    zero: bool = False
    dirty: bool = False
    hole: bool = False


class Client:
    """One export, for one thread."""

    def __init__(self, nbd: client.Client) -> None:
        self._nbd = nbd

    @property
    def export(self) -> Export:
        """What was negotiated."""
        return self._nbd.export

    @property
    def export_size(self) -> int:
        """The size in bytes."""
        return self._nbd.export.size

    @property
    def dirty_bitmap(self) -> Optional[str]:
        """The context of the dirty bitmap, if there is exactly one."""
        bitmaps = self._nbd.export.bitmaps
        return bitmaps[0] if len(bitmaps) == 1 else None

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes at offset."""
        data = bytearray(length)
        self._nbd.read(offset, memoryview(data))
        return bytes(data)

    def write(self, offset: int, data: Union[bytes, bytearray, memoryview]) -> None:
        """Write data at offset."""
        self._nbd.write(offset, memoryview(data))

    def zero(self, offset: int, length: int, punch_hole: bool = True) -> None:
        """Make the range read as zeroes."""
        self._nbd.zero(offset, length, punch_hole)

    def flush(self) -> None:
        """Make what was written survive a power failure."""
        self._nbd.flush()

    def extents(self, offset: int, length: int) -> dict[str, list[Extent]]:
        """Return the extents at offset, by the name of their context; they may cover less than the range."""
        packed = self._nbd.block_status(offset, length)
        return {
            name: [describe(name, extent) for extent in status.decode(self.export, packed[number])]
            for number, name in self.export.contexts.items()
        }

    def close(self) -> None:
        """Say good-bye and close."""
        self._nbd.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def describe(context: str, extent: status.Status) -> Extent:
    """Return what the flags of a context mean."""
    length, flags = extent
    if context == wire.BASE_ALLOCATION:
        return Extent(length, zero=bool(flags & wire.STATE_ZERO))
    if context == wire.ALLOCATION_DEPTH:
        return Extent(length, hole=flags == 0)
    return Extent(length, dirty=bool(flags & wire.STATE_DIRTY))


def open(url: Union[str, urllib.parse.ParseResult, urllib.parse.SplitResult], dirty: bool = False) -> Client:
    """Connect to an export, with its dirty bitmaps if `dirty`."""
    text = url if isinstance(url, str) else url.geturl()
    return Client(connect(address.parse(text), dirty=dirty))
