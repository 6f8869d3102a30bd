"""The extents that an origin lists, while they arrive.

Knows the shape of a listing; knows nothing of how it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.geometry.blocks import MAX_SIZE
from ovirt_imageio.geometry.extent import DirtyExtent, Extent, ZeroExtent
from ovirt_imageio.origin import jsonstream
from ovirt_imageio.origin.reply import Reply

__all__ = ["read_extents"]


def read_extents(reply: Reply, context: str, start: int = 0, end: Optional[int] = None) -> Iterator[Extent]:
    """Yield the extents that the reply holds, which must cover everything from start to end, if that is known.

    A list may begin before start and go on behind end: old servers know only whole disks, and a disk may have grown.
    The reply is closed at the end, or when the caller wants no more.
    """
    position: Optional[int] = None
    with reply:
        try:
            for item in jsonstream.objects(reply.chunks()):
                if position is not None and end is not None and position >= end:
                    return  # The rest is not needed, and may never end.
                extent = make_extent(item, context)
                check_place(extent, position, start)
                position = extent.start + extent.length
                yield extent
            reached = start if position is None else position
            if end is not None and reached < end:
                raise ValueError(f"it ends at {reached}, the image at {end}")
        except (ValueError, TypeError, KeyError) as e:
            raise errors.StorageError("list extents", f"the image server sent a malformed list: {e}") from e


def check_place(extent: Extent, position: Optional[int], start: int) -> None:
    """Raise ValueError if an extent does not begin where the one before it ended, or the first one behind start."""
    if position is None:
        if extent.start > start:
            raise ValueError(f"it begins at {extent.start}, not at {start}")
        return
    if extent.start != position:
        raise ValueError(f"an extent begins at {extent.start}, where the one before it ends at {position}")
    if not extent.length:
        raise ValueError(f"the extent at {position} is empty")


def make_extent(item: Mapping[str, Any], context: str) -> Extent:
    """Return the extent that the origin told; very old ones tell less."""
    start, length = item["start"], item["length"]
    if type(start) is not int or type(length) is not int or start < 0 or length < 0:
        raise ValueError("an extent is not made of numbers")
    if start + length > MAX_SIZE:
        raise ValueError("an extent ends where no disk does")
    if context == "zero":
        return ZeroExtent(start, length, item["zero"] is True, item.get("hole") is True)
    return DirtyExtent(start, length, item["dirty"] is True, item.get("zero") is True)
