"""How much must be under way to a server, by how far away it is.

    near    answers come at once: few connections, large pieces, two of which are under way
    far     the line holds what was sent in one round trip: as much must be under way, and more connections, as the
            window of each is limited, and each loss halves it

Pure: knows neither connections nor clocks.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from ovirt_imageio.client.copy.plan import MAX_COPY

__all__ = ["FAR", "NEAR", "Reach", "Window", "reach"]

KIB = 1024
MIB = 1024**2

# Round trips from here on, in seconds. A network of one site has less than one millisecond, one of a town some; a busy
# server may take ten for a handshake of TLS.
FAR = 0.02

# What is under way to a server that is far takes this many round trips, and this many seconds at least. One round trip
# fills the line, in slow start TCP sends twice as much in the next one, and a loss makes the rest wait.
ROUND_TRIPS = 3
LEAST_SECONDS = 0.25

# With one packet of a thousand lost, a connection takes half a second for a piece, of which two are under way at least:
# in the end the others wait for that. As a request, a piece costs 100 microseconds at both ends.
FAR_COPY = 256 * KIB

# The line has no time for bytes that nobody needs; requests are under way all the time.
FAR_GAP = 4 * KIB

# What waits in the kernel for a slow connection cannot be sent by another one. TCP must not run dry before the thread
# that sends gets a processor: with 30 MB/s this takes it four milliseconds.
FAR_UNSENT = 128 * KIB

# The window of each is limited, and each loss halves it.
FAR_CONNECTIONS = 8

# More than the kernel lets the window of one connection grow to, if it is not told otherwise.
MAX_WINDOW = 16 * MIB


class Reach(NamedTuple):
    """`connections`: as many, where the caller wants no other number; `max_copy`: no piece is longer; `max_gap`: gaps
    between data that are not longer are downloaded along, and dropped: that is cheaper than another request.

    On each connection there may be under way: by HTTP two pieces, and more up to a window, but of small ones
    `requests`; by NBD so many requests, and a window at each end. A window is what the connection moves in `seconds`,
    but `window` bytes at least, `nbd_window` by NBD. The kernel takes no more than about `unsent` bytes before TCP may
    send them.
    """

    connections: int = 4
    max_copy: int = MAX_COPY
    max_gap: int = 128 * KIB
    requests: int = 32
    nbd_requests: int = 64
    window: int = 2 * MIB
    # Not more than the cache of a processor holds.
    nbd_window: int = 4 * MIB
    seconds: float = 0
    unsent: Optional[int] = None


NEAR = Reach()


class Window:
    """How many bytes may be under way on one connection: it grows and shrinks with what the connection moves.

    What waits behind a slow connection is missed in the end, when others have nothing left.
    """

    def __init__(self, least: int, seconds: float) -> None:
        self._least = least
        self._seconds = seconds
        self.size = least

    def ended(self, ahead: int, seconds: float) -> None:
        """Note that a task ended so long after it began, when this many bytes were under way, with its own."""
        # Zeroes move no bytes.
        if ahead > 0 and seconds > 0:
            self.size = int(max(self._least, min(ahead * self._seconds / seconds, MAX_WINDOW)))


def reach(round_trip: float, can_pipeline: bool = True) -> Reach:
    """Return what suits a server with a round trip of this many seconds; can several requests to it be under way?"""
    if round_trip < FAR:
        return NEAR
    if not can_pipeline:
        # Each request costs a round trip.
        return NEAR._replace(connections=FAR_CONNECTIONS, max_copy=4 * MIB)
    return Reach(
        connections=FAR_CONNECTIONS,
        max_copy=FAR_COPY,
        max_gap=FAR_GAP,
        # What is sent before the first answer must fit into the smallest buffers of sockets: as many heads, or requests
        # of NBD.
        requests=128,
        nbd_requests=512,
        window=2 * FAR_COPY,
        nbd_window=2 * FAR_COPY,
        seconds=max(LEAST_SECONDS, ROUND_TRIPS * round_trip),
        unsent=FAR_UNSENT,
    )
