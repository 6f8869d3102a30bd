"""What a disk holds, range by range: extents, and how neighbours merge.

Pure: knows neither where extents come from nor how they are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Union

__all__ = ["DirtyExtent", "Extent", "ZeroExtent", "clipped", "merged"]


class ZeroExtent(NamedTuple):
    """`length` bytes at `start`: do they read as zeroes, and is nothing allocated in any layer of the image?"""

    start: int
    length: int
    zero: bool
    hole: bool

    @property
    def data(self) -> bool:
        """True if the bytes must be read to be known."""
        return not self.zero


class DirtyExtent(NamedTuple):
    """`length` bytes at `start`: did they change since the checkpoint, and do they read as zeroes?"""

    start: int
    length: int
    dirty: bool
    zero: bool

    @property
    def data(self) -> bool:
        """True if the bytes must be read to be known."""
        return not self.zero


Extent = Union[ZeroExtent, DirtyExtent]


def clipped(extents: Iterable[Extent], start: int, end: int) -> Iterator[Extent]:
    """Yield the parts of extents, which come in order, that lie between start and end."""
    for extent in extents:
        if extent.start >= end:
            return
        first = max(extent.start, start)
        last = min(extent.start + extent.length, end)
        if first < last:
            yield extent._replace(start=first, length=last - first)


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Yield extents with neighbours of equal flags made one; empty ones are dropped."""
    pending = None
    for extent in extents:
        if extent.length == 0:
            continue
        if pending is not None and pending[2:] == extent[2:] and pending.start + pending.length == extent.start:
            pending = pending._replace(length=pending.length + extent.length)
            continue
        if pending is not None:
            yield pending
        pending = extent
    if pending is not None:
        yield pending
