"""What all users of one disk in this process share: locks of its blocks, and what was learnt about it.

Knows numbers only, no files.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import NamedTuple

from ovirt_imageio.geometry import blocks

__all__ = ["GRAIN", "Shared", "shared_by"]

# What is locked: as big as the biggest block that is probed, and as a page, because what is written through the page
# cache is written back in pages.
GRAIN = 4096


class Claim(NamedTuple):
    """What one writer needs: the blocks from `start` to `end`, of which it covers `edges` only in part."""

    start: int
    end: int
    edges: frozenset[int]

    def excludes(self, other: Claim) -> bool:
        """Return True if one of them writes a part of a block of the other one."""
        return any(other.start <= edge < other.end for edge in self.edges) or any(
            self.start <= edge < self.end for edge in other.edges
        )


class Shared:
    """One disk, as all its users see it.

    Threads: any.
    """

    def __init__(self) -> None:
        # The ways to zero that this disk was found not to have.
        self.unsupported: set[str] = set()
        self._changed = threading.Condition()
        self._claims: list[Claim] = []

    @contextlib.contextmanager
    def locked(self, offset: int, length: int) -> Iterator[None]:
        """Keep others out of the blocks that a write covers only in part, and out of the rest those that do the same.

        Two writers may each own a part of a block; writing a part means to read the block, change it and write it, and
        a writer that does that at the same time undoes what the other did, also if that covers the block in full.
        Writers that all cover a block in full need not take turns.
        """
        start, count = blocks.span(offset, length, GRAIN)
        claim = Claim(start, start + count, blocks.shared_blocks(offset, length, GRAIN))
        with self._changed:
            # All or none: a thread that waits holds nothing, so no two wait for each other.
            self._changed.wait_for(lambda: not any(map(claim.excludes, self._claims)))
            self._claims.append(claim)
        try:
            yield
        finally:
            with self._changed:
                self._claims.remove(claim)
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
