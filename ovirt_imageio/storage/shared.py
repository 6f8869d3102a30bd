"""What all users of one disk in this process share: locks of its blocks, and what was learnt about it.

Knows numbers only, no files.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator

from ovirt_imageio.geometry import blocks

__all__ = ["GRAIN", "Shared", "shared_by"]

# What is locked: as big as the biggest block that is probed, and as a page, because what is written through the page
# cache is written back in pages.
GRAIN = 4096


class Shared:
    """One disk, as all its users see it.

    Threads: any.
    """

    def __init__(self) -> None:
        # The ways to zero that this disk was found not to have.
        self.unsupported: set[str] = set()
        self._changed = threading.Condition()
        self._locked: set[int] = set()

    @contextlib.contextmanager
    def locked(self, offset: int, length: int) -> Iterator[None]:
        """Keep others out of the blocks that a write covers only in part.

        Two writers may each own a part of a block; writing a part means to read the block, change it and write it, and
        a writer that does that at the same time undoes what the other did. A block that is covered in full has one
        owner.
        """
        edges = blocks.shared_blocks(offset, length, GRAIN)
        if not edges:
            yield
            return
        with self._changed:
            # All or none: a thread that waits holds nothing, so no two wait for each other.
            self._changed.wait_for(lambda: self._locked.isdisjoint(edges))
            self._locked |= edges
        try:
            yield
        finally:
            with self._changed:
                self._locked -= edges
                self._changed.notify_all()


_lock = threading.Lock()
_known: weakref.WeakValueDictionary[tuple[int, int], Shared] = weakref.WeakValueDictionary()


def shared_by(identity: tuple[int, int]) -> Shared:
    """Return the one object for this disk, which lives as long as it is referred to."""
    with _lock:
        shared = _known.get(identity)
        if shared is None:
            shared = _known[identity] = Shared()
        return shared
