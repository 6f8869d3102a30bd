"""Every error that the package raises on purpose.

    Error
    ├── InvalidValue              what was sent or written is not what was asked for
    │   ├── InvalidTicket         ... in a ticket document
    │   ├── InvalidRange          ... in a Range header
    │   └── ConfigError           ... in a configuration file
    ├── AuthorizationError        the request may not do what it asks for
    │   ├── NoSuchTicket          unknown, expired and canceled look the same from outside
    │   ├── NotPermitted          the ticket is good, but not for this
    │   └── NotAuthenticated      no session, or a signed token that proves nothing
    ├── NotFound                  a thing that was asked for by name is not there
    │   └── UnsupportedContext    the disk has no such kind of extents
    ├── UnsafeImage               an image names a file of this host that it should not
    ├── TransferBusy              a ticket cannot be removed yet
    ├── TooManyConnections        a ticket is used over as many as it may
    ├── RangeNotSatisfiable       beyond the end of the ticket or the disk
    ├── PartialContent            the data ended before the size that was promised
    ├── OperationCanceled         a running operation was asked to stop
    ├── ServiceStops              ... because the service stops, which may be a restart
    ├── BrokenProtocol            a client broke the rules of the protocol that it asked for
    ├── ClosedBackend             used after close
    └── StorageError              the disk, or what stands between us and it, failed
        ├── NoSpace               it is full
        ├── BackendUnavailable    another program that we need cannot be reached or used
        │   └── BackendUntrusted  what answers is not what we look for
        ├── BackendTimeout        it does not answer in time
        └── OriginError           the server behind a proxy said no: its status and its words

Errors carry fields; which HTTP status they become is decided in one place, handlers/status.py. A message tells
what happened, with the values, and what to do about it; it never holds a ticket id.

This module may import nothing of the package.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

__all__ = [
    "AuthorizationError",
    "BackendTimeout",
    "BackendUnavailable",
    "BackendUntrusted",
    "BrokenProtocol",
    "ClosedBackend",
    "ConfigError",
    "Error",
    "InvalidRange",
    "InvalidTicket",
    "InvalidValue",
    "NoSpace",
    "NoSuchTicket",
    "NotAuthenticated",
    "NotFound",
    "NotPermitted",
    "OperationCanceled",
    "OriginError",
    "PartialContent",
    "RangeNotSatisfiable",
    "ServiceStops",
    "StorageError",
    "TooManyConnections",
    "TransferBusy",
    "UnsafeImage",
    "UnsupportedContext",
    "conceal",
    "printable",
    "quoted",
    "storage_error",
    "visible",
]

# A value is quoted in a message up to this many characters: enough to recognize it, too few to flood a log.
QUOTE_LIMIT = 80

# Fewer characters are guessed in no time.
SHORTEST_SECRET = 8


class Error(Exception):
    """The root: to catch this is to catch every failure that we foresaw."""


@dataclass(eq=False)
class InvalidValue(Error):
    """The `name` that was sent is `value`, but we need `expected`."""

    name: str
    value: Any
    expected: str

    def __str__(self) -> str:
        return f"Invalid {self.name} {quoted(self.value)}: expected {self.expected}"


class InvalidTicket(InvalidValue):
    """A ticket document breaks a rule; `name` is the key that breaks it."""


class InvalidRange(InvalidValue):
    """A Range header that cannot be read."""


@dataclass(eq=False)
class ConfigError(InvalidValue):
    """A value in a configuration file cannot be used; `name` is its key, or what else is wrong in the file."""

    section: str = ""
    file: str = ""

    def __str__(self) -> str:
        place = f" in {self.file}" if self.file else ""
        what = f"[{self.section}] {self.name} =" if self.section else self.name
        return f"{what} {quoted(self.value)}{place}: expected {self.expected}"


class AuthorizationError(Error):
    """The request may not do what it asks for."""


class NoSuchTicket(AuthorizationError):
    """Unknown, expired and canceled tickets look the same from outside: probing teaches nothing."""

    def __str__(self) -> str:
        return "No such ticket: it is unknown, expired or canceled; ask for a new transfer"


@dataclass(eq=False)
class NotPermitted(AuthorizationError):
    """The ticket does not allow this operation."""

    operation: str

    def __str__(self) -> str:
        return f"The ticket does not permit to {self.operation}"


@dataclass(eq=False)
class NotAuthenticated(AuthorizationError):
    """The client showed no session, or a signed token that proves nothing; `reason` never quotes the token."""

    reason: str

    def __str__(self) -> str:
        return f"Not authenticated: {self.reason}"


@dataclass(eq=False)
class NotFound(Error):
    """There is no such thing."""

    what: str

    def __str__(self) -> str:
        return f"No such {self.what}"


@dataclass(eq=False)
class UnsupportedContext(NotFound):
    """The disk cannot report extents of this kind; `why` says what is missing."""

    why: str = "the storage does not report them"

    def __str__(self) -> str:
        return f"No {self.what} extents: {self.why}"


@dataclass(eq=False)
class UnsafeImage(Error):
    """An image uses another file, which its author may have chosen."""

    path: str
    why: str

    def __str__(self) -> str:
        # An image below another one is named by that one.
        return f"Cannot use {visible(self.path)}: {self.why}"


@dataclass(eq=False)
class TransferBusy(Error):
    """A ticket is canceled, but operations still run; `operations` describes each."""

    transfer_id: str
    operations: Sequence[str]

    def __str__(self) -> str:
        return f"Transfer {self.transfer_id} is still busy, try again: {', '.join(self.operations)}"


@dataclass(eq=False)
class TooManyConnections(Error):
    """A ticket is used over `limit` connections, and may not be over more."""

    limit: int

    def __str__(self) -> str:
        return f"The ticket is used over its limit of {self.limit} connections: close some, or try again later"


@dataclass(eq=False)
class RangeNotSatisfiable(Error):
    """The range begins or ends beyond `available` bytes."""

    offset: int
    length: Optional[int]
    available: int

    def __str__(self) -> str:
        end = "" if self.length is None else f" of {self.length} bytes"
        return f"Range{end} at offset {self.offset} is out of bounds: {self.available} bytes are available"


@dataclass(eq=False)
class PartialContent(Error):
    """The source ended after `available` of the `requested` bytes; those that came were written."""

    requested: int
    available: int

    def __str__(self) -> str:
        return f"Expected {self.requested} bytes, got only {self.available}"


@dataclass(eq=False)
class BrokenProtocol(Error):
    """A client broke the rules of the protocol that it asked for; nothing more can be said to it."""

    reason: str

    def __str__(self) -> str:
        return f"The client broke the protocol: {self.reason}"


class OperationCanceled(Error):
    """The ticket was canceled, or its client does not want this any more."""

    def __str__(self) -> str:
        return "The operation was canceled"


class ServiceStops(Error):
    """The service stops while it works on this; if that is a restart, the next try will do."""

    def __str__(self) -> str:
        return "The service stops, and may be back soon: try again"


@dataclass(eq=False)
class ClosedBackend(Error):
    """A backend was used after close()."""

    name: str

    def __str__(self) -> str:
        return f"The {self.name} backend is closed"


@dataclass(eq=False)
class StorageError(Error):
    """The `operation` failed; `reason` is safe to show to the client, `code` is an errno if there is one."""

    operation: str
    reason: str
    code: Optional[int] = None

    def __str__(self) -> str:
        return f"Storage failed to {self.operation}: {self.reason}"


class NoSpace(StorageError):
    """The storage is full."""


class BackendUnavailable(StorageError):
    """Another program that we need cannot be reached or used: the origin of a proxy, qemu-nbd, qemu-img."""

    def __str__(self) -> str:
        return f"Cannot {self.operation}: {self.reason}"


class BackendUntrusted(BackendUnavailable):
    """What answers is not what we look for: its certificate is not good, or it speaks another language."""


class BackendTimeout(StorageError):
    """The storage does not answer in time."""

    def __str__(self) -> str:
        return f"Cannot {self.operation}: {self.reason}"


@dataclass(eq=False)
class OriginError(StorageError):
    """The server that a proxy asked refused: its HTTP status, and its Content-Range when it sent one."""

    status: int = 500
    content_range: Optional[str] = None

    def __str__(self) -> str:
        return self.reason


def storage_error(operation: str, error: OSError) -> StorageError:
    """Return our error for one of the system, without the path that it names."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(operation, reason, error.errno)
    if isinstance(error, TimeoutError):
        return BackendTimeout(operation, reason or "timed out", error.errno)
    return StorageError(operation, reason, error.errno)


def quoted(value: Any) -> str:
    """Return the repr of value, cut to a length that suits a message; user and password of a URL are not repeated."""
    text = repr(value)
    start, end = text.find("//"), text.rfind("@")
    # Up to the last one: a password that is not quoted may hold anything.
    if 0 <= start < end:
        text = f"{text[:start]}//(user){text[end:]}"
    return text if len(text) <= QUOTE_LIMIT else text[:QUOTE_LIMIT] + "..."


def conceal(text: str, secret: str, shown: str) -> str:
    """Return text with `shown` in place of a secret.

    One that is too short to be a secret is replaced only where it is a word: it may be a part of many.
    """
    pattern = re.escape(secret)
    if len(secret) < SHORTEST_SECRET:
        pattern = rf"(?<!\w){pattern}(?!\w)"
    return re.sub(pattern, lambda match: shown, text) if secret else text


def printable(text: str) -> str:
    """Return text in one line that shows on a terminal as it is: its white space becomes single spaces."""
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """Return text with U+FFFD for what does something else than show: escape sequences, marks that turn the writing."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
