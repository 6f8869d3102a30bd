"""What a process knows of a transfer, for the process that goes on with it after a restart of the service.

    Record ──describe()──> a JSON object ──parse()──> Record, or an error that names the key

Pure: no clock (times are relative to the moment when clients could reach us last), no lock, no backend.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth import ticket as tickets
from ovirt_imageio.auth.ticket import MAX_SECONDS, Fields, Ticket
from ovirt_imageio.geometry.blocks import MAX_SIZE

__all__ = ["Record", "parse"]

# It becomes a header.
TAG = re.compile("[0-9a-f]{16}")

# Counters that grow by one.
MAX_COUNT = 2**63 - 1

# The words of an origin are cut long before.
MAX_ERROR_LENGTH = 64 * 1024

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Record:
    """A ticket, and what came of it until now."""

    ticket: Ticket
    # As it was changed last.
    inactivity_timeout: int
    # Seconds until the ticket expires; negative if it did.
    remaining: float
    # Seconds since it was used, and since it was added.
    idle: float
    age: float
    # What the tag of the content is made of: a client goes on with what it has while that is the same.
    tag: str
    writes: int
    # A client that waits for changes has seen this one.
    version: int
    # The parts of the disk that were moved.
    ranges: Ranges = field(repr=False)
    last_error: Optional[str]
    # May acknowledged writes be lost, of which no flush has told the client?
    has_loss: bool
    # Seconds until it ends, whatever happens; None if activity alone decides.
    lifetime: Optional[float]

    def describe(self) -> dict[str, Any]:
        """Return it as a JSON object. The ticket in it is a secret."""
        return {**vars(self), "ticket": self.ticket.describe(), "ranges": [list(part) for part in self.ranges]}


def parse(document: object, check_url: Optional[Callable[[str], None]] = None) -> Record:
    """Return the record that a decoded JSON document describes; raises errors.InvalidTicket.

    check_url raises errors.InvalidValue for a URL that cannot be served any more.
    """
    fields = Fields(document)
    ticket = tickets.parse(fields.get("ticket"), check_url=check_url)
    fields.uuid = ticket.uuid
    return Record(
        ticket=ticket,
        inactivity_timeout=fields.integer("inactivity_timeout", MAX_SECONDS),
        remaining=fields.seconds("remaining"),
        idle=fields.seconds("idle"),
        age=fields.seconds("age"),
        tag=_tag(fields),
        writes=fields.integer("writes", MAX_COUNT),
        version=fields.integer("version", MAX_COUNT),
        ranges=_ranges(fields),
        last_error=_last_error(fields),
        has_loss=fields.boolean("has_loss"),
        lifetime=None if fields.get("lifetime", None) is None else fields.seconds("lifetime"),
    )


def _tag(fields: Fields) -> str:
    tag = fields.get("tag")
    if type(tag) is not str or not TAG.fullmatch(tag):
        raise fields.error("tag", tag, "16 hexadecimal digits")
    return tag


def _ranges(fields: Fields) -> Ranges:
    ranges = fields.get("ranges")
    if not isinstance(ranges, list) or not all(map(_is_range, ranges)):
        # There may be a million of them.
        raise errors.InvalidTicket("ranges", "(not shown)", f"a list of [start, end], from 0 to {MAX_SIZE}")
    return tuple((start, end) for start, end in ranges)


def _is_range(part: object) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 2
        and all(type(number) is int for number in part)
        and 0 <= part[0] <= part[1] <= MAX_SIZE
    )


def _last_error(fields: Fields) -> Optional[str]:
    text = fields.get("last_error", None)
    if text is not None and (type(text) is not str or len(text) > MAX_ERROR_LENGTH):
        raise fields.error("last_error", text, f"null, or a string of at most {MAX_ERROR_LENGTH} characters")
    return text
