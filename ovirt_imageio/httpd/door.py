"""Which clients may come in: a server has room for a number of connections, and one address cannot have all of them.

Knows what a connection waits for; knows nothing of sockets, and starts no threads.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import threading
from collections import Counter
from typing import Callable, Optional, Protocol

from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.refusal import Refusal

__all__ = ["Door", "Guest", "Tally", "group_of"]

log = logging.getLogger("http")

# Seconds after which a client over a limit may try again.
RETRY_AFTER = 5

# What is refused within this time after a line in the log is counted, and told in one line.
SUMMARY_SECONDS = 10.0

# At most this many addresses are counted one by one.
TALLY_LIMIT = 1000

# The client of a Unix socket.
LOCAL = "local"


class Waiting(Protocol):
    """A connection, as far as the door cares."""

    @property
    def waits_since(self) -> Optional[float]:
        """Since when it waits for a request, while nothing else keeps it open; None if it does not."""

    def abort(self) -> None:
        """Shut it down. Never blocks."""


class Guest:
    """A client that knocked. `connection` is set when it is served."""

    __slots__ = ("client", "connection", "group")

    def __init__(self, client: str) -> None:
        self.client = client
        self.group = group_of(client)
        self.connection: Optional[Waiting] = None


class Door:
    """Lets guests in, up to the limits.

    When the house is full, the guest that waits longest without having anything to do makes room: it did not finish its
    handshake or the head of its request, or is idle, and used no ticket.

    Threads: any.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._guests: set[Guest] = set()
        # How many there are of each group.
        self._groups: Counter[str] = Counter()

    def enter(self, guest: Guest, now: float) -> Optional[Refusal]:
        """Let a guest in and return None, or return why not. `now` is of the clock that connections use."""
        limits = self._limits
        with self._lock:
            if guest.group and self._groups[guest.group] >= limits.client_connections:
                return refusal(f"Your address has its limit of {limits.client_connections} connections")
            if len(self._guests) >= limits.connections and not self._make_room(now - limits.waiting_grace):
                return refusal(f"The server has its limit of {limits.connections} connections")
            self._guests.add(guest)
            self._groups[guest.group] += 1
        return None

    def leave(self, guest: Guest) -> None:
        """Note that a guest has left; harmless when it is out already."""
        with self._lock:
            self._remove(guest)

    def _make_room(self, before: float) -> bool:
        """Send out the guest that waits longest, if it does since `before`; return False if none does."""
        longest, oldest = None, before
        for guest in self._guests:
            since = None if guest.connection is None else guest.connection.waits_since
            if since is not None and since <= oldest:
                longest, oldest = guest, since
        if longest is None or longest.connection is None:
            return False
        log.debug("Making room for others client=%s", longest.client)
        longest.connection.abort()
        self._remove(longest)
        return True

    def _remove(self, guest: Guest) -> None:
        assert self._lock.locked()
        if guest in self._guests:
            self._guests.remove(guest)
            self._groups[guest.group] -= 1
            if not self._groups[guest.group]:
                del self._groups[guest.group]


class Tally:
    """Tells the log of refusals: of the first one at once, then of all others every few seconds in one line.

    Threads: one at a time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        # When to tell what was counted; None if nothing was refused for long enough.
        self._due: Optional[float] = None

    def note(self, client: str, reason: str) -> None:
        """Note a refusal."""
        self.tell()
        if self._due is None:
            log.warning("Refused a connection client=%s: %s", client, reason)
            self._due = self._clock() + SUMMARY_SECONDS
        else:
            known = client in self._counts or len(self._counts) < TALLY_LIMIT
            self._counts[client if known else "others"] += 1

    def tell(self) -> None:
        """Log what was counted, if it is time for that."""
        if self._due is None or self._clock() < self._due:
            return
        self._due = None
        if self._counts:
            client, count = self._counts.most_common(1)[0]
            log.warning(
                "Refused %s more connections within %g seconds, %s of them of client=%s",
                sum(self._counts.values()),
                SUMMARY_SECONDS,
                count,
                client,
            )
            self._counts.clear()
            self._due = self._clock() + SUMMARY_SECONDS

    def left(self) -> Optional[float]:
        """Return how many seconds are left until tell() has something to do, None if nothing was refused."""
        return None if self._due is None else max(0.0, self._due - self._clock())


@functools.lru_cache(maxsize=4096)
def group_of(client: str) -> str:
    """Return what shares one limit with the client: an IPv4 address, or the 64 bits that one IPv6 site has.

    Clients of a Unix socket share none: the group is empty.

    >>> group_of("::ffff:192.0.2.1")
    '192.0.2.1'
    >>> group_of("2001:db8::1:2:3:4")
    '2001:db8::/64'
    """
    if client == LOCAL:
        return ""
    address = ipaddress.ip_address(client.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


def refusal(text: str) -> Refusal:
    """Return the refusal of a client for which there is no room now."""
    return Refusal(503, f"{text}, try again later", {"retry-after": str(RETRY_AFTER)})
