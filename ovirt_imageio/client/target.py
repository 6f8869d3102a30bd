"""What a download writes: a new image, made and served by qemu, or a device.

    NewQcow2 (newqcow2.py)    a new qcow2 image that stands alone: the usual case
    QemuImage                 everything else: other formats, backing files, devices

Knows images here; knows nothing of servers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Callable, Optional, Protocol

from ovirt_imageio.backends.base import Backend
from ovirt_imageio.client import local
from ovirt_imageio.client.errors import SizeMismatch
from ovirt_imageio.client.local import ImageFile
from ovirt_imageio.client.resume import Journal
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.node import is_block_device

__all__ = ["QemuImage", "Target", "partial"]


class Target(Protocol):
    """An image that is downloaded to.

    Threads: one; what `served` gives may be called by any.
    """

    @property
    def tag(self) -> Optional[str]:
        """A text that differs for an image with which an interrupted download cannot go on; None if it always can."""

    def create(self) -> None:
        """Make the image anew. What is there is not touched before it is sure that it may be."""

    def served(self, connections: int) -> contextlib.AbstractContextManager[Callable[[], Backend]]:
        """Serve it in a with block, after which it is complete; what it gives opens its disk, `connections` at once."""

    def opened(self) -> contextlib.AbstractContextManager[Backend]:
        """Open its disk, which may not be complete, to look at it."""

    def close(self) -> None:
        """Release what is held; harmless when repeated."""


class QemuImage:
    """An image that qemu knows how to write.

    Threads: those of Target.
    """

    tag = None

    def __init__(
        self, image: ImageFile, size: int, backing_file: Optional[str] = None, backing_format: Optional[str] = None
    ) -> None:
        self._image = image
        self._size = size
        self._backing_file = backing_file
        self._backing_format = backing_format if backing_file else None

    def create(self) -> None:
        """Let qemu-img create it; a device must be large enough."""
        path, format = self._image.path, self._image.format
        if format == "raw" and is_block_device(path):
            with self.opened() as device:
                if device.size() < self._size:
                    raise SizeMismatch(self._size, device.size())
            return
        img.create(
            os.path.abspath(path),
            format,
            self._size,
            backing_file=self._backing_file,
            backing_format=self._backing_format,
        )

    def served(self, connections: int) -> contextlib.AbstractContextManager[Callable[[], Backend]]:
        """Serve it."""
        return local.served(self._image, writable=True, connections=connections)

    def opened(self) -> contextlib.AbstractContextManager[Backend]:
        """Open its disk."""
        return local.opened(self._image)

    def close(self) -> None:
        """Hold nothing."""


@contextlib.contextmanager
def partial(target: Target, path: str, journal: Optional[Journal]) -> Iterator[None]:
    """Create the image; if the with block fails, delete it, or leave it marked as partial by its journal."""
    if journal is not None and journal.done:
        yield
        return
    # What is there already is not touched before it is sure that the image can be created.
    is_ours = not os.path.exists(path)
    try:
        if journal is not None:
            journal.begin()
        target.create()
        is_ours = True
        yield
    except BaseException:
        if journal is None:
            if is_ours and not is_block_device(path):
                remove(path)
        elif not is_ours:
            journal.remove()
        raise


def remove(path: str) -> None:
    """Delete a part of an image, not the link to it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.realpath(path))
