"""What bytes come from and go to: the smallest interface that a body, a file and a test share.

Pure: imports a socket for its type only.
"""

from __future__ import annotations

import socket as sockets
from typing import Callable, Optional, Protocol

__all__ = ["Progress", "Sink", "Source", "fill"]

# Called with the number of bytes moved since the last call, at least once per MiB; it may raise, to stop the move.
# Calls come one at a time, but maybe from another thread than the one that started the move. A negative number takes
# back what was sent, and turned out not to be stored.
Progress = Callable[[int], None]


class HasReadinto(Protocol):
    """What views can be filled from, as Python's files are."""

    def readinto(self, view: memoryview, /) -> int:
        """Read up to len(view) bytes, at least one; return how many, 0 at the end."""


class Source(HasReadinto, Protocol):
    """Where bytes come from: the body of a request, a file, a test."""

    @property
    def socket(self) -> Optional[sockets.socket]:
        """The plain socket whose next bytes are ours, when the kernel may take them from there; else None."""

    def advance(self, count: int) -> None:
        """Tell that `count` bytes were taken from the socket."""


class Sink(Protocol):
    """Where bytes go: the body of a response, a file, a test."""

    def write(self, view: memoryview) -> None:
        """Write all of view."""

    @property
    def socket(self) -> Optional[sockets.socket]:
        """The plain socket that takes our next bytes, when the kernel may put them there; else None."""

    def advance(self, count: int) -> None:
        """Tell that `count` bytes were put into the socket."""


def fill(source: HasReadinto, view: memoryview) -> int:
    """Read from the source until view is full or the source ends; return the number of bytes read."""
    done = 0
    while done < len(view):
        count = source.readinto(view[done:])
        if count == 0:
            break
        done += count
    return done
