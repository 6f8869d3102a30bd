"""The extents that an origin lists, while they arrive.

Knows the shape of a listing; knows nothing of how it was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ovirt_imageio import errors
from ovirt_imageio.geometry.extent import DirtyExtent, Extent, ZeroExtent
from ovirt_imageio.origin import jsonstream
from ovirt_imageio.origin.reply import Reply

__all__ = ["read_extents"]


def read_extents(reply: Reply, context: str) -> Iterator[Extent]:
    """Yield the extents that the reply holds; it is closed at the end, or when the caller wants no more."""
    position = None
    with reply:
        try:
            for item in jsonstream.objects(reply.chunks()):
                extent = make_extent(item, context)
                if position is not None and extent.start != position:
                    raise ValueError("there is a gap")
                position = extent.start + extent.length
                yield extent
        except (ValueError, TypeError, KeyError) as e:
            raise errors.StorageError("list extents", f"the origin sent a malformed list: {e}") from e


def make_extent(item: Mapping[str, Any], context: str) -> Extent:
    """Return the extent that the origin told; very old ones tell less."""
    start, length = item["start"], item["length"]
    if type(start) is not int or type(length) is not int or start < 0 or length < 0:
        raise ValueError("an extent is not made of numbers")
    if context == "zero":
        return ZeroExtent(start, length, item["zero"] is True, item.get("hole") is True)
    return DirtyExtent(start, length, item["dirty"] is True, item.get("zero") is True)
