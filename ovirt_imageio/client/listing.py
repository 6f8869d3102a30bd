"""List the extents of an image on a server: over HTTP, and when many short ones come, by NBD.

    HTTP    begins at once, over the connection that is there; an extent costs both ends 3.5 microseconds
    NBD     takes a connection of its own; an extent costs them 1.6

Knows servers; knows nothing of what the extents are for.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Generator, Iterator
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.client import ways
from ovirt_imageio.client.copy import pace
from ovirt_imageio.client.copy.ends import translated_there
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.geometry.extent import Extent
from ovirt_imageio.nbd import status
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.errors import ConnectionDead, RequestFailed
from ovirt_imageio.nbd.handshake import Export
from ovirt_imageio.nbd.wire import BASE_ALLOCATION
from ovirt_imageio.origin.answers import is_passing
from ovirt_imageio.origin.image import Image

__all__ = ["list_extents"]

log = logging.getLogger(__name__)


def list_extents(remote: Remote, image: Image, context: str, retries: int = 0) -> Generator[Extent, None, None]:
    """Yield the "zero" or "dirty" extents of the image, going on where a lost connection left off.

    A caller that wants no more of them closes the generator; then the connection can be used for other things.

    Raises errors.UnsupportedContext here, not when the first one is asked for.
    """
    return resumed(remote, image, context, image.extents(context), retries)


def resumed(
    remote: Remote, image: Image, context: str, extents: Iterator[Extent], retries: int
) -> Generator[Extent, None, None]:
    """Yield the extents, and after a failure that may pass those that are missing."""
    position = 0
    pauses = pace.backoff(retries)
    while True:
        try:
            for extent in handed_over(remote, image, context, extents):
                yield extent
                position = extent.start + extent.length
                pauses = pace.backoff(retries)
            return
        except errors.Error as error:
            pause = next(pauses, None)
            if pause is None or not is_passing(error):
                raise
            log.warning("Trying again in %.1f seconds: %s", pause, error)
        time.sleep(pause)
        extents = rest(image, context, position)


def rest(image: Image, context: str, position: int) -> Iterator[Extent]:
    """Yield the extents from a position; asking for them may fail, too."""
    yield from image.extents(context, position)


def handed_over(remote: Remote, image: Image, context: str, extents: Iterator[Extent]) -> Iterator[Extent]:
    """Yield the extents as they come; when there are many short ones, the rest by NBD if that is possible."""
    count = length = end = 0
    for extent in itertools.islice(extents, ways.MANY):
        yield extent
        count += 1
        length += extent.length
        end = extent.start + extent.length
    # As it was told at first: to ask now would disturb the list that comes.
    if not ways.are_many(count, length, image) or end == image.abilities.size:
        yield from extents
        return
    with contextlib.ExitStack() as stack:
        nbd = try_nbd(remote, image, context, stack)
        if nbd is None:
            yield from extents
            return
        if isinstance(extents, Generator):
            extents.close()
        log.debug("Listing by NBD from %d on", end)
        yield from listed(nbd, context, end)


def try_nbd(remote: Remote, image: Image, context: str, stack: contextlib.ExitStack) -> Optional[Client]:
    """Return a connection that tells the same by NBD; None if the server does not give one."""
    try:
        nbd = stack.enter_context(remote.speaking(dirty=context == "dirty"))
    except errors.Error as error:
        log.warning("Listing on by HTTP, as the server does not speak NBD: %s", error)
        return None
    return nbd if nbd.export.size == image.abilities.size and can_tell(nbd.export, context) else None


def can_tell(export: Export, context: str) -> bool:
    """Does the server tell by NBD what it tells by HTTP? One that tells of no holes does so nowhere."""
    return BASE_ALLOCATION in export.contexts.values() and (context == "zero" or len(export.bitmaps) == 1)


def listed(nbd: Client, context: str, start: int) -> Iterator[Extent]:
    """Yield the extents from start on."""
    length = nbd.export.size - start
    try:
        if context == "zero":
            yield from status.zero_extents(nbd, start, length)
        else:
            yield from status.dirty_extents(nbd, start, length, nbd.export.bitmaps[0])
    except (RequestFailed, ConnectionDead) as error:
        raise translated_there("list extents", error) from error
