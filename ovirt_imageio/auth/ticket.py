"""A ticket: which disk, how much of it, for what, and for how long.

    parse()   a document from outside ──> Ticket, or an error that names the key

Pure: no clock, no lock, no thread, no backend. What happens to a ticket later is in lease.py and transfer.py.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.geometry.blocks import MAX_SIZE

__all__ = ["MAX_SECONDS", "OPERATIONS", "Changes", "Fields", "Ticket", "parse", "parse_changes", "short"]

OPERATIONS = ("read", "write")

DEFAULT_INACTIVITY_TIMEOUT = 60

# The engine reads times as 32-bit integers.
MAX_SECONDS = 2**31 - 1

# An id is one segment of a URL whose whole line may have 4 KiB; a UUID has 36 characters.
MAX_ID_LENGTH = 255
MAX_FILENAME_LENGTH = 1024
MAX_URL_LENGTH = 8192

CHANGEABLE = ("timeout", "inactivity_timeout", "lifetime")

# What could forge a log line or a header, or cannot be encoded: control characters, line separators, lone surrogates.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# The default transfer id shows this much of the ticket id.
PREFIX_LENGTH = 18


@dataclass(frozen=True)
class Ticket:
    """What the holder of its id may do. The uuid is the secret; log `transfer_id` instead."""

    uuid: str = field(repr=False)
    size: int
    # May hold the uuid: the URL of a proxy's ticket names the ticket of the origin.
    url: str = field(repr=False)
    ops: tuple[str, ...]
    timeout: int
    inactivity_timeout: int
    transfer_id: str
    filename: Optional[str]
    sparse: bool
    dirty: bool
    # Seconds until nothing may begin any more, whatever happens on it; None: activity alone decides.
    lifetime: Optional[int] = None

    def can(self, operation: str) -> bool:
        """True if the ticket permits to "read" or "write". What may be written may be read, too."""
        return operation in self.ops or (operation == "read" and "write" in self.ops)

    def describe(self) -> dict[str, Any]:
        """Return what was asked for, as the control service shows it."""
        document = {**vars(self), "ops": list(self.ops)}
        return {name: value for name, value in document.items() if value is not None}


@dataclass(frozen=True)
class Changes:
    """What may be changed while a ticket lives; None leaves it as it is."""

    timeout: Optional[int] = None
    inactivity_timeout: Optional[int] = None
    lifetime: Optional[int] = None


def parse(
    document: object,
    url_id: Optional[str] = None,
    inactivity_timeout: int = DEFAULT_INACTIVITY_TIMEOUT,
    check_url: Optional[Callable[[str], None]] = None,
) -> Ticket:
    """Return the ticket that a decoded JSON document describes.

    url_id is the id under which it was sent; inactivity_timeout the default for a document without one; check_url
    raises errors.InvalidValue for a URL that cannot be served. Keys that we do not know are ignored: newer senders may
    have more. Raises errors.InvalidTicket.
    """
    fields = Fields(document)
    uuid = fields.uuid = _uuid(fields, url_id)
    return Ticket(
        uuid=uuid,
        size=fields.integer("size", MAX_SIZE),
        url=_url(fields, check_url),
        ops=_ops(fields),
        timeout=fields.integer("timeout", MAX_SECONDS),
        # A socket that tolerates no pause at all serves no client: 0 asks for the default.
        inactivity_timeout=fields.integer("inactivity_timeout", MAX_SECONDS, 0) or inactivity_timeout,
        transfer_id=fields.text("transfer_id", MAX_ID_LENGTH, "") or f"(ticket/{short(uuid)})",
        filename=fields.text("filename", MAX_FILENAME_LENGTH, "") or None,
        sparse=fields.boolean("sparse"),
        dirty=fields.boolean("dirty"),
        lifetime=fields.integer("lifetime", MAX_SECONDS) if "lifetime" in fields else None,
    )


def parse_changes(document: object) -> Changes:
    """Return the changes that a decoded JSON document asks for; it must hold at least one.

    Keys that cannot be changed are ignored. Raises errors.InvalidTicket.
    """
    fields = Fields(document)
    seconds = {name: fields.integer(name, MAX_SECONDS) for name in CHANGEABLE if name in fields}
    if not seconds:
        raise errors.InvalidTicket("timeout", _MISSING, f"one of {', '.join(CHANGEABLE)}, in seconds")
    return Changes(**seconds)


def short(uuid: str, length: int = PREFIX_LENGTH) -> str:
    """Return a prefix that tells tickets apart and gives no access: at most half of the id."""
    return uuid[: min(length, len(uuid) // 2)]


# --- The border ------------------------------------------------------------------------------------------------------


class _Missing:
    def __repr__(self) -> str:
        return "(missing)"


_MISSING: Any = _Missing()


class Fields:
    """The keys of a document, with their types. A boolean is not an integer, and null is not a value."""

    def __init__(self, document: object) -> None:
        # Once it is known, no error shows it.
        self.uuid = ""
        if not isinstance(document, dict):
            raise errors.InvalidTicket("ticket", type(document).__name__, "a JSON object")
        self._values: dict[str, Any] = document

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def get(self, name: str, default: Any = _MISSING) -> Any:
        return self._values.get(name, default)

    def integer(self, name: str, largest: int, default: Any = _MISSING) -> int:
        value = self.get(name, default)
        if type(value) is not int or not 0 <= value <= largest:
            raise self.error(name, value, f"an integer from 0 to {largest}")
        return value

    def seconds(self, name: str) -> float:
        """Return a number of seconds, whole or not, that may be negative."""
        value = self.get(name)
        if type(value) not in (int, float) or not -MAX_SECONDS <= value <= MAX_SECONDS:
            raise self.error(name, value, f"a number from -{MAX_SECONDS} to {MAX_SECONDS}")
        return float(value)

    def number(self, name: str, largest: float) -> float:
        """Return a number, whole or not, that is not negative."""
        value = self.get(name)
        if type(value) not in (int, float) or not 0 <= value <= largest:
            raise self.error(name, value, f"a number from 0 to {largest}")
        return float(value)

    def boolean(self, name: str) -> bool:
        value = self.get(name, False)
        if type(value) is not bool:
            raise self.error(name, value, "true or false")
        return value

    def text(self, name: str, longest: int, default: Any = _MISSING) -> str:
        value = self.get(name, default)
        if type(value) is not str or len(value) > longest or UNSAFE.search(value):
            raise self.error(name, value, f"a string of at most {longest} characters, none of them a control character")
        return value

    def error(self, name: str, value: Any, expected: str) -> errors.InvalidTicket:
        if self.uuid and self.uuid in repr(value):
            value = errors.conceal(str(value), self.uuid, f"{short(self.uuid)}...")
        return errors.InvalidTicket(name, value, expected)


def _uuid(fields: Fields, url_id: Optional[str]) -> str:
    uuid = fields.get("uuid")
    if type(uuid) is not str or not uuid or len(uuid) > MAX_ID_LENGTH or "/" in uuid or UNSAFE.search(uuid):
        shown = f"{short(uuid)}..." if type(uuid) is str else uuid
        raise errors.InvalidTicket(
            "uuid", shown, f"a string of 1 to {MAX_ID_LENGTH} characters without slashes and control characters"
        )
    if url_id is not None and url_id != uuid:
        raise errors.InvalidTicket("uuid", f"{short(uuid)}...", "the id in the URL of the request")
    return uuid


def _ops(fields: Fields) -> tuple[str, ...]:
    ops = fields.get("ops")
    if not isinstance(ops, list) or not ops or any(op not in OPERATIONS for op in ops):
        raise fields.error("ops", ops, "a list of read, write or both")
    return tuple(dict.fromkeys(ops))


def _url(fields: Fields, check_url: Optional[Callable[[str], None]]) -> str:
    text = fields.text("url", MAX_URL_LENGTH)
    try:
        # Not .port: the engine's own tests send https://server:port/.
        parts = urllib.parse.urlsplit(text)
        if not parts.scheme:
            raise errors.InvalidValue("url", text, "a URL with a scheme")
        if check_url is not None:
            check_url(text)
    except ValueError as e:
        raise fields.error("url", text, "a URL") from e
    except errors.InvalidValue as e:
        # From None: the first error shows the whole URL, and a traceback would show both.
        raise fields.error("url", text, e.expected) from None
    # Files have two spellings, and are shown in one. Put together again, other URLs may lose the // of an empty host.
    return parts.geturl() if parts.scheme == "file" else text
