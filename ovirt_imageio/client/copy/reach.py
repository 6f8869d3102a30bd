"""How much must be under way to a server, by how far away it is.

    near    answers come at once: few connections, large pieces, two of which are under way
    far     the line holds what was sent in one round trip: as much must be under way, and more connections, as the
            window of each is limited, and each loss halves it

Pure: knows neither connections nor clocks.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Optional

from ovirt_imageio.client.copy.plan import MAX_COPY
from ovirt_imageio.geometry import blocks

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

# As a request, a piece costs 100 microseconds at both ends. With one packet of a thousand lost, a connection takes half
# a second for a piece, of which two are under way at least, and in the end the others wait for that: so those that
# move little get shorter ones.
FAR_COPY = 256 * KIB
FAR_MIN_COPY = 64 * KIB

# A window does not get smaller for this many times three round trips: from ten packets on, slow start needs seven round
# trips until it moves 512 KiB in one.
SLOW_START = 3

# The line has no time for bytes that nobody needs; requests are under way all the time.
FAR_GAP = 4 * KIB

# Bytes that wait in the kernel for a slow connection cannot be sent by another one. TCP must not run dry before the
# thread that sends gets a processor: with 30 MB/s this takes it four milliseconds.
FAR_UNSENT = 128 * KIB

# The window of each is limited, and each loss halves it.
FAR_CONNECTIONS = 8

# A small disk is cut into this many pieces for each worker, so that all have something to do until the end; but no
# piece is shorter than MIN_SHARE: with small ones the copy would go by NBD.
SHARES = 4
MIN_SHARE = 4 * MIB

# More than the kernel lets the window of one connection grow to, if it is not told otherwise.
MAX_WINDOW = 16 * MIB


class Reach(NamedTuple):
    """`connections`: as many, where the caller wants no other number; `max_copy`: no piece is longer; `max_gap`: gaps
    between data that are not longer are downloaded along, and dropped: that is cheaper than another request.

    On each connection there may be under way: by HTTP two pieces, and more up to a window, but of small ones
    `requests`; by NBD so many requests, and a window at each end. A window is what the connection moves in `seconds`,
    at first `window` bytes, `nbd_window` by NBD, later not fewer than `least`. A piece that is longer than one
    `share`-th of it is cut, but not below `min_copy`; nor is more than that read here before it can be sent. The kernel
    takes no more than about `unsent` bytes before TCP may send them.
    """

    connections: int = 4
    max_copy: int = MAX_COPY
    min_copy: int = MAX_COPY
    max_gap: int = 128 * KIB
    requests: int = 32
    nbd_requests: int = 64
    window: int = 2 * MIB
    # Not more than the cache of a processor holds.
    nbd_window: int = 4 * MIB
    least: int = 0
    seconds: float = 0
    share: int = 1
    unsent: Optional[int] = None

    def pieces(self, size: Optional[int]) -> int:
        """Return how many copies a disk of this size may have: so many connections can be of use. 1 if not known."""
        return max(1, -(-(size or 0) // self.max_copy))

    def share_of(self, size: int, workers: int) -> int:
        """Return how long a copy may be of a disk of this size, so that all workers have something to do."""
        share = blocks.round_up(-(-size // (workers * SHARES)), MIB)
        return min(self.max_copy, max(MIN_SHARE, share))

    def longest(self, window: int) -> int:
        """Return how long a copy may be on a connection with this window; cuts keep to blocks."""
        return max(self.min_copy, blocks.round_down(window // self.share, self.min_copy))


NEAR = Reach()


class Window:
    """How many bytes may be under way on one connection: what it moves in some seconds, but `least` of them.

    It begins with `start`, and does not get smaller before slow start is over. What waits behind a slow connection is
    missed in the end, when others have nothing left. Without `seconds` it stays as it is.
    """

    def __init__(self, start: int, least: int, seconds: float) -> None:
        self._start = start
        self._least = least
        self._seconds = seconds
        self._began = 0.0
        # When tasks ended, and how many bytes they had: those of the last round trip, and the one before.
        self._ends: deque[tuple[float, int]] = deque()
        self._moved = 0
        self.size = start

    def begin(self, now: float) -> None:
        """Note that a task begins while no other one is under way."""
        if not self._seconds:
            return
        if not self._ends:
            self._began = now
        self._ends = deque([(now, 0)])
        self._moved = 0

    def ended(self, length: int, now: float) -> None:
        """Note that a task ended, which had this many bytes that moved."""
        if not self._seconds:
            return
        self._ends.append((now, length))
        self._moved += length
        # The first one tells since when the others moved.
        while now - self._ends[1][0] >= self._seconds / ROUND_TRIPS:
            self._ends.popleft()
            self._moved -= self._ends[0][1]
        moving = now - self._ends[0][0]
        if moving > 0:
            least = self._start if now - self._began < SLOW_START * self._seconds else self._least
            self.size = int(max(least, min(self._moved * self._seconds / moving, MAX_WINDOW)))


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
        min_copy=FAR_MIN_COPY,
        max_gap=FAR_GAP,
        # What is sent before the first answer must fit into the smallest buffers of sockets: as many heads, or requests
        # of NBD.
        requests=128,
        nbd_requests=512,
        window=2 * FAR_COPY,
        nbd_window=2 * FAR_COPY,
        least=2 * FAR_MIN_COPY,
        share=4,
        seconds=max(LEAST_SECONDS, ROUND_TRIPS * round_trip),
        unsent=FAR_UNSENT,
    )
