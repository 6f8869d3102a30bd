"""What can go wrong with an NBD server, split by what it leaves behind.

    Error
    ├── RequestFailed         one request failed; the connection is fine
    │   └── Unsupported       ... because the server does not offer it: nothing was sent
    ├── ClientFault           where we are the server: the client broke the rules, or left amid a request
    └── ConnectionDead        nothing more can be said on this connection: close it, open another
        ├── ProtocolError     the server broke the rules, or speaks something else
        ├── Refused           the server said no while we negotiated
        ├── Disconnected      the server went away
        └── TimedOut          the server does not answer

Texts that come from a server are cut and made printable here: they end up in logs and answers.

This module may import nothing of the package.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from os import strerror

__all__ = [
    "ClientFault",
    "ConnectionDead",
    "Disconnected",
    "Error",
    "ProtocolError",
    "Refused",
    "RequestFailed",
    "TimedOut",
    "Unsupported",
    "printable",
]

# A text of a server is quoted up to this many characters.
TEXT_LIMIT = 200

# The error numbers that the protocol fixes, whatever they are called on this system.
CODES = {
    1: errno.EPERM,
    5: errno.EIO,
    12: errno.ENOMEM,
    22: errno.EINVAL,
    28: errno.ENOSPC,
    75: errno.EOVERFLOW,
    95: errno.ENOTSUP,
    108: errno.ESHUTDOWN,
}


class Error(Exception):
    """To catch this is to catch every failure of an NBD connection."""


@dataclass(eq=False)
class RequestFailed(Error):
    """The server answered a request with error `code`, the number on the wire, and maybe a message."""

    command: str
    code: int
    message: str = ""

    @property
    def errno(self) -> int:
        """The error as a number of this system; a code that the protocol does not know counts as EINVAL."""
        return CODES.get(self.code, errno.EINVAL)

    @property
    def reason(self) -> str:
        """What to tell people: the server's own words, or the system's."""
        text = strerror(CODES[self.code]) if self.code in CODES else f"unknown error {self.code}"
        return f"{self.message} ({text})" if self.message else text

    def __str__(self) -> str:
        return f"NBD {self.command} failed: {self.reason}"


@dataclass(eq=False)
class Unsupported(RequestFailed):
    """The server does not offer this request on this export; nothing was sent."""

    code: int = 95


class ConnectionDead(Error):
    """Nothing more can be said on this connection."""


class ClientFault(Error):
    """A client of our own server broke the rules of the protocol, or left amid a request; close its connection."""


class ProtocolError(ConnectionDead):
    """The server broke the rules of the protocol, or speaks another one."""


@dataclass(eq=False)
class Refused(ConnectionDead):
    """The server said no to an option while we negotiated, for `reason`."""

    option: str
    reason: str

    def __str__(self) -> str:
        return f"NBD server refused {self.option}: {self.reason}"


class Disconnected(ConnectionDead):
    """The server, or the network between, closed the connection."""


class TimedOut(ConnectionDead):
    """The server did not answer in time."""


def printable(data: bytes) -> str:
    """Return the text of a server, fit for a log: one line, printable, not long."""
    text = "".join(c if c.isprintable() else " " for c in data.decode("utf-8", "replace")).strip()
    return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "..."
