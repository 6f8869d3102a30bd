"""Where a range of bytes meets the blocks of a disk.

Pure arithmetic: knows neither files nor buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional

__all__ = ["MAX_SIZE", "Split", "pieces", "round_down", "round_up", "shared_blocks", "span", "split"]

# No disk is longer: kernels and protocols count its bytes in signed 64-bit numbers.
MAX_SIZE = 2**63 - 1


class Split(NamedTuple):
    """The lengths of the three parts of a range; any of them may be zero.

        blocks   |        |        |        |        |
        range        [head][  body          ][tail]

    Head and tail lie within one block each; the body begins and ends on a block boundary.
    """

    head: int
    body: int
    tail: int


def round_down(n: int, block: int) -> int:
    """Return the last multiple of block that is not above n."""
    return n - n % block


def round_up(n: int, block: int) -> int:
    """Return the first multiple of block that is not below n."""
    return n + -n % block


def split(offset: int, length: int, block: int) -> Split:
    """Split a range at block boundaries; one within a single block is all head, or all tail."""
    head = min(-offset % block, length)
    tail = (length - head) % block
    return Split(head, length - head - tail, tail)


def span(offset: int, length: int, block: int) -> tuple[int, int]:
    """Return offset and length of the smallest run of whole blocks that holds a range."""
    start = round_down(offset, block)
    return start, round_up(offset + length, block) - start


def shared_blocks(offset: int, length: int, block: int) -> frozenset[int]:
    """Return the starts of the blocks that a range covers only in part: at most two, others may write the rest."""
    end = offset + length
    edges = (offset, end) if length else ()
    return frozenset(round_down(edge, block) for edge in edges if edge % block)


def pieces(offset: int, length: Optional[int], step: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of the pieces of a range, each of which ends on a multiple of step, or where it ends.

    A length of None has no end.
    """
    end = None if length is None else offset + length
    while end is None or offset < end:
        stop = round_down(offset, step) + step
        if end is not None:
            stop = min(stop, end)
        yield offset, stop - offset
        offset = stop
