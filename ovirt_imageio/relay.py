"""How bytes move: a source, a sink, and the ways between them.

    source ──> slot ──> sink        bytes that pass through us: TLS, or data that must be looked at
    source ──> pipe ──> sink        bytes that stay in the kernel: both ends are plain descriptors

Knows descriptors and views; knows nothing of disks, protocols and HTTP.
"""

from __future__ import annotations

import socket as sockets
from typing import Callable, Optional, Protocol

__all__ = ["Progress", "Sink", "Source"]

# Called with the number of bytes moved since the last call, at least once per MiB; it may raise, to stop the move.
Progress = Callable[[int], None]


class Source(Protocol):
    """Where bytes come from: the body of a request, a file, a test."""

    def readinto(self, view: memoryview) -> int:
        """Read up to len(view) bytes, at least one; return how many, 0 at the end."""

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
