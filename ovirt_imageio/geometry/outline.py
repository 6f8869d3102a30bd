"""Where the data of a disk is, in eight bytes for each place at which data begins or ends.

    disk       |  zero  |     data     |  hole  |  zero  | data |
    changes             ^              ^                 ^      ^

A list of extents that is needed twice, and may have a million of them, is kept like this. Whether what reads as zero is
a hole is forgotten.

Pure: knows extents, not where they come from.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from ovirt_imageio.geometry.extent import Extent, ZeroExtent, clipped

__all__ = ["Outline"]


class Outline:
    """The extents of the first `size` bytes of a disk, which come in order, and without gaps.

    Taken are only so many that there are `limit` changes; then `is_complete` is false.

    Threads: any number at once.

    >>> outline = Outline(3072, [ZeroExtent(0, 1024, False, False), ZeroExtent(1024, 2048, True, True)], 9)
    >>> [(extent.start, extent.length, extent.zero) for extent in outline.extents()]
    [(0, 1024, False), (1024, 2048, True)]
    """

    def __init__(self, size: int, extents: Iterable[Extent], limit: int) -> None:
        self.size = size
        self.is_complete = False
        self._changes = array("q")
        is_data = False
        for extent in clipped(extents, 0, size):
            if extent.data != is_data:
                if len(self._changes) >= limit:
                    return
                self._changes.append(extent.start)
                is_data = extent.data
        self.is_complete = True

    def extents(self) -> Iterator[ZeroExtent]:
        """Yield the extents, neighbours merged."""
        start, is_data = 0, False
        for change in self._changes:
            if start < change:
                yield ZeroExtent(start, change - start, not is_data, False)
            start, is_data = change, not is_data
        if start < self.size:
            yield ZeroExtent(start, self.size - start, not is_data, False)
