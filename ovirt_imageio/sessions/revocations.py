"""The signed tickets that are revoked on this daemon, the last 100,000 of them.

    deny(jti, ...) ──> is_denied(jti) until it is lifted ──> or forgotten, when there is no room:
                                                             covers(issued) of all that may be meant

A denial of a ticket that was shown ends with its token. One of a ticket that was never seen has no end, as nobody knows
when its token ends. So that nothing that was revoked comes back, a denial that has to be forgotten is replaced by a
time: what was signed before it may be what was revoked.

Knows nothing of tokens, and no clock: `now` is an argument.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import OrderedDict
from typing import Any, Optional

from ovirt_imageio.auth.agenda import Agenda
from ovirt_imageio.auth.ticket import Fields

__all__ = ["LAST_SECOND", "Revocations"]

log = logging.getLogger("sessions")

# It bounds what the control service can make us hold: 40 MB. A manager that removes each ticket twice denies the second
# time an id that is not known any more.
LIMIT = 100_000

# That of a time of day in a token: as good as never.
LAST_SECOND = 253402300799


@dataclasses.dataclass(frozen=True)
class Denial:
    """A jti that is revoked; `ticket_id` is the ticket in the store that it had, which may take a while to end."""

    since: float
    until: float
    ticket_id: Optional[str] = None


class Revocations:
    """See the module. All times are seconds since the epoch.

    Threads: one at a time.
    """

    def __init__(self) -> None:
        # The oldest first.
        self._denials: OrderedDict[str, Denial] = OrderedDict()
        # When a denial ends: they need not all be looked at.
        self._lifts = Agenda()
        # The time of the last denial that was forgotten for want of room.
        self._forgotten = 0.0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._denials)

    def deny(self, jti: str, now: float, until: float = LAST_SECOND, ticket_id: Optional[str] = None) -> None:
        """Deny a jti; if it is denied already, until the later one of both times."""
        known = self._denials.get(jti)
        if known is not None:
            until, ticket_id = max(until, known.until), ticket_id or known.ticket_id
        self._set(jti, Denial(now, until, ticket_id))

    def is_denied(self, jti: str, now: float) -> bool:
        """Return True if a jti is denied now."""
        denial = self._denials.get(jti)
        return denial is not None and denial.until > now

    def covers(self, issued: float) -> bool:
        """Return True if a token that was signed then may be one whose denial was forgotten."""
        return self._forgotten > 0 and issued <= self._forgotten

    def ticket_of(self, jti: str) -> Optional[str]:
        """Return the id in the store that a jti had; None if it had none, or is not denied."""
        denial = self._denials.get(jti)
        return None if denial is None else denial.ticket_id

    def purge(self, now: float) -> None:
        """Forget those that have ended."""
        for jti in self._lifts.pop_due(now):
            del self._denials[jti]

    def record(self) -> dict[str, Any]:
        """Return what another process needs to go on, as a JSON object."""
        denials = {jti: {"since": denial.since, "until": denial.until} for jti, denial in self._denials.items()}
        return {"denials": denials, "forgotten": self._forgotten}

    def resume(self, document: object) -> None:
        """Go on with those of another process. Raises errors.InvalidTicket."""
        fields = Fields(document)
        self._forgotten = fields.number("forgotten", LAST_SECOND)
        denials = Fields(fields.get("denials"))
        for jti in denials:
            denial = Fields(denials.get(jti))
            self._set(jti, Denial(denial.number("since", LAST_SECOND), denial.number("until", LAST_SECOND)))

    def _set(self, jti: str, denial: Denial) -> None:
        self._denials[jti] = denial
        self._denials.move_to_end(jti)
        self._lifts.set(jti, denial.until)
        if len(self._denials) > LIMIT:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        if not self._forgotten:
            log.warning(
                "More than %d signed tickets are revoked, or were removed without being known: from now on a ticket "
                "that is not in use must tell by its iat that it was signed after the first of them was",
                LIMIT,
            )
        jti, denial = self._denials.popitem(last=False)
        self._lifts.remove(jti)
        self._forgotten = max(self._forgotten, denial.since)
