"""Whether anything may still happen to a transfer, and until when.

             CANCEL                 DRAIN
    OPEN ──────────────> CANCELING ──────────> CANCELED

A Lease says until when an open one may be used: activity moves the end forward.

Pure: no clock (`now` is an argument), no lock, no thread, no backend.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Optional

from ovirt_imageio.auth.ticket import MAX_SECONDS

__all__ = ["TRANSITIONS", "Event", "Lease", "State"]


class State(enum.Enum):
    """The states of a transfer."""

    # Uses of the disk may begin while the lease lasts.
    OPEN = "open"
    # Nothing new may begin; what runs is being stopped.
    CANCELING = "canceling"
    # Nothing runs any more, and nothing ever will.
    CANCELED = "canceled"


class Event(enum.Enum):
    """What moves a transfer from state to state."""

    # The ticket was removed or replaced, or the service stops.
    CANCEL = "cancel"
    # The last use of the disk ended, and its last backend was closed, or there was none.
    DRAIN = "drain"


# What is not in the table changes nothing: a second CANCEL, or the end of a use while the transfer is open.
TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.OPEN, Event.CANCEL): State.CANCELING,
        (State.CANCELING, Event.DRAIN): State.CANCELED,
    }
)


@dataclass
class Lease:
    """How long a ticket lives: until `expires`, which activity moves forward.

    Not frozen, but pure: every method is told the time.
    """

    timeout: int
    expires: float
    accessed: float
    # When it ends, whatever happens until then.
    ends: float = math.inf

    @classmethod
    def begin(cls, timeout: int, now: float, lifetime: Optional[int] = None) -> Lease:
        """Return the lease of a ticket that is added now, and lives for `lifetime` seconds at most."""
        return cls(timeout, now + timeout, now, math.inf if lifetime is None else now + lifetime)

    def touch(self, now: float) -> None:
        """Note activity. It never shortens a life that was extended beyond the timeout."""
        self.accessed = now
        self.expires = max(self.expires, now + self.timeout)

    def extend(self, seconds: int, now: float) -> None:
        """Expire `seconds` from now, be that later or earlier; revives what has expired."""
        self.expires = now + seconds

    def limit(self, seconds: int, now: float) -> None:
        """End `seconds` from now, whatever happens until then."""
        self.ends = now + seconds

    def is_expired(self, now: float) -> bool:
        """True if the time is over: nothing may begin."""
        return min(self.expires, self.ends) <= now

    def is_abandoned(self, now: float) -> bool:
        """True if nothing happened for so long that what runs on it is cut."""
        return self.expires <= now

    def describe(self, now: float) -> dict[str, int]:
        """Return how long it lasts, as the control service shows it."""
        expires = min(self.expires, self.ends)
        return {"expires": min(int(expires), MAX_SECONDS), "remaining": max(0, int(expires - now))}
