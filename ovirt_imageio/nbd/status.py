"""What an export holds, range by range: walk its block status.

The server tells each meta context for itself, in pieces as long as it likes. Here they become extents that are in
order, clipped to the range that was asked for, with neighbours merged; one answer of the server is kept at a time, so a
million extents take no more memory than a few.
"""

from __future__ import annotations

from collections.abc import Iterator

from ovirt_imageio.geometry import blocks
from ovirt_imageio.geometry.extent import DirtyExtent, Extent, ZeroExtent, merged
from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.errors import ProtocolError
from ovirt_imageio.nbd.handshake import Export
from ovirt_imageio.nbd.wire import Mode

__all__ = ["Status", "decode", "dirty_extents", "walk", "zero_extents"]


# One extent of one context: its length, and the flags as they are on the wire.
Status = tuple[int, int]

# Start and length, and the flags of each context, in the order of Export.contexts.
Part = tuple[int, int, tuple[int, ...]]


def zero_extents(client: Client, offset: int, length: int) -> Iterator[Extent]:
    """Yield the zero extents of a range: one of data if the server cannot tell."""
    place = places(client.export)
    base, depth = place.get(wire.BASE_ALLOCATION), place.get(wire.ALLOCATION_DEPTH)
    if base is None:
        return iter([ZeroExtent(offset, length, False, False)] if length else [])
    return merged(
        ZeroExtent(start, size, flags[base] & wire.STATE_ZERO != 0, depth is not None and flags[depth] == 0)
        for start, size, flags in walk(client, offset, length)
    )


def dirty_extents(client: Client, offset: int, length: int, bitmap: str) -> Iterator[Extent]:
    """Yield the dirty extents of a range, after one bitmap of the export."""
    place = places(client.export)
    base, dirty = place.get(wire.BASE_ALLOCATION), place[bitmap]
    return merged(
        DirtyExtent(
            start,
            size,
            flags[dirty] & wire.STATE_DIRTY != 0,
            base is not None and flags[base] & wire.STATE_ZERO != 0,
        )
        for start, size, flags in walk(client, offset, length)
    )


def places(export: Export) -> dict[str, int]:
    """Return where in the flags of a part those of a context stand."""
    return {name: place for place, name in enumerate(export.contexts.values())}


def walk(client: Client, offset: int, length: int) -> Iterator[Part]:
    """Yield the parts of a range in which no context changes.

    base:allocation   |      data       |  zero  |   data ...
    dirty bitmap      |  clean  |       dirty        |   ...
    parts             |    1    |   2   |   3    | 4 | 5 ...
    """
    contexts = client.export.contexts
    # A server with large blocks wants to be asked about whole ones.
    block = client.export.minimum_block
    position, end = offset, offset + length
    while position < end:
        start = blocks.round_down(position, block)
        limit = min(blocks.round_up(end, block), client.export.size) - start
        packed = client.block_status(start, min(limit, blocks.round_down(client.max_status, block)))
        lists = [decode(client.export, packed[number]) for number in contexts]
        before = position
        for part, size, flags in parallel(start, lists):
            size = min(part + size, end) - max(part, position)
            if size <= 0:
                continue
            yield position, size, flags
            position += size
            if position >= end:
                return
        if position == before:
            raise ProtocolError(f"the NBD server reported extents shorter than its blocks of {block} bytes")


def decode(export: Export, packed: memoryview) -> Iterator[Status]:
    """Yield the extents of one context; raises ProtocolError for one that cannot be."""
    layout = wire.STATUS_EXT_EXTENT if export.mode is Mode.EXTENDED else wire.STATUS_EXTENT
    for extent in layout.iter_unpack(packed):
        if not extent[0]:
            raise ProtocolError("the NBD server reported an empty extent")
        # Passed on as it is: a disk may have a million of them.
        yield extent


def parallel(start: int, lists: list[Iterator[Status]]) -> Iterator[Part]:
    """Yield each part in which no list changes, until one of them ends."""
    # What is left of the current extent of each list, and its flags.
    left, flags = map(list, zip(*(next(items) for items in lists)))
    while True:
        size = min(left)
        yield start, size, tuple(flags)
        start += size
        for i, length in enumerate(left):
            if length > size:
                left[i] = length - size
                continue
            following = next(lists[i], None)
            if following is None:
                return
            left[i], flags[i] = following
