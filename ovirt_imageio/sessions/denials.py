"""The signed tickets that are revoked on all daemons: a file with a jti on each line, read again when it changes.

Knows files; knows nothing of tickets.
"""

from __future__ import annotations

import logging
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.sessions.engine import Stamp, stamp_of

__all__ = ["DenyFile"]

log = logging.getLogger("sessions")


class DenyFile:
    """Asked whether a jti is denied. What is behind a # is a comment.

    Raises errors.ConfigError if the file cannot be read now. Later that is logged, and all are denied: those
    that revoked a ticket rely on it.

    Threads: any number at once.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            # Replaced as a whole, so that no thread sees half of it.
            self._loaded: tuple[Optional[Stamp], frozenset[str]] = (stamp_of(path), load(path))
        except (OSError, ValueError) as e:
            expected = f"a file that can be read: {e}"
            raise errors.ConfigError("deny_file", path, expected, section="signed_tickets") from e

    def __call__(self, jti: str) -> bool:
        """Return True if the jti is denied. Raises errors.NotAuthenticated if that cannot be known."""
        stamp, denied = self._loaded
        try:
            found = stamp_of(self._path)
            if found != stamp:
                denied = load(self._path)
                self._loaded = (found, denied)
        except (OSError, ValueError) as e:
            log.error("Cannot read which signed tickets are denied: %s", e)
            raise errors.NotAuthenticated("signed tickets cannot be verified now: the log tells why") from e
        return jti in denied


def load(path: str) -> frozenset[str]:
    """Return what a file denies."""
    with open(path, encoding="utf-8") as file:
        return frozenset(filter(None, (line.partition("#")[0].strip() for line in file)))
