"""The two ends of a lane: opened when they are needed first, interrupted and closed together.

Knows nothing of what moves between them.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Generic, Optional, Protocol, TypeVar

from ovirt_imageio import errors
from ovirt_imageio.net.lifeline import Lifeline

__all__ = ["Pair"]


class Interruptible(Protocol):
    """What an end must be able to do."""

    def interrupt(self) -> None:
        """Make whatever blocks fail soon. Threads: any."""

    def close(self) -> None:
        """Release everything."""


L = TypeVar("L", bound=Interruptible)
R = TypeVar("R", bound=Interruptible)


class Pair(Generic[L, R]):
    """An end here and one there; a thread that cuts the line ends the wait for the one there.

    Threads: one, but for `interrupt`.
    """

    def __init__(self, open_local: Callable[[], L], open_remote: Callable[[Lifeline], R]) -> None:
        self._open_local = open_local
        self._open_remote = open_remote
        self.local: Optional[L] = None
        self.remote: Optional[R] = None
        # Held while a connection is made.
        self._line = Lifeline()

    def open(self) -> tuple[L, R]:
        """Return both, and open those that are not. Raises errors.OperationCanceled once they were interrupted."""
        local = self.open_local()
        if self.remote is None:
            self.remote = self._open_remote(self._line)
        if self._line.is_cut:
            raise errors.OperationCanceled()
        return local, self.remote

    def open_local(self) -> L:
        """Return the one here, and open it if it is not."""
        if self.local is None:
            self.local = self._open_local()
        return self.local

    def interrupt(self) -> None:
        """Wake whatever blocks, now and later. Threads: any."""
        self._line.cut()
        for end in (self.local, self.remote):
            if end is not None:
                end.interrupt()

    def close(self) -> None:
        """Close those that are open; harmless when repeated. They can be opened again."""
        local, remote, self.local, self.remote = self.local, self.remote, None, None
        with contextlib.ExitStack() as stack:
            # Each is closed, whatever becomes of the other one.
            for end in (remote, local):
                if end is not None:
                    stack.callback(end.close)
