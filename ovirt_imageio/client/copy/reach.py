"""How much must be under way to a server, by how far away it is.

    near    answers come at once: few connections, large pieces, two of which are under way
    far     the line holds what was sent in one round trip: as much must be under way, and more connections, as the
            window of each is limited, and each loss halves it

Pure: knows neither connections nor clocks.
"""

from __future__ import annotations

from typing import NamedTuple

from ovirt_imageio.client.copy.plan import MAX_COPY

__all__ = ["FAR", "MAX_WINDOW", "MIN_WINDOW", "NEAR", "RATE", "Reach", "reach"]

MIB = 1024**2

# Round trips from here on, in seconds. A network of one site has less than one millisecond, one of a town some; a busy
# server may take ten for a handshake of TLS.
FAR = 0.02

# What one connection shall be able to move, in bytes per second: 1 Gbit/s.
RATE = 125_000_000

# More than the kernel lets the window of one connection grow to, if it is not told otherwise; and more than that would
# be kept from other connections in the end.
MIN_WINDOW = 8 * MIB
MAX_WINDOW = 16 * MIB


class Reach(NamedTuple):
    """`connections`: as many, where the caller wants no other number; `max_copy`: no piece is longer.

    On each connection there may be under way: by HTTP two pieces, and more of them up to `window` bytes, but of small
    ones `requests`; by NBD so many requests, and bytes.
    """

    connections: int = 4
    max_copy: int = MAX_COPY
    window: int = 0
    requests: int = 32
    nbd_requests: int = 64
    # Not more than the cache of a processor holds.
    nbd_bytes: int = 4 * MIB


NEAR = Reach()


def reach(round_trip: float) -> Reach:
    """Return what suits a server with a round trip of this many seconds."""
    if round_trip < FAR:
        return NEAR
    window = int(min(max(MIN_WINDOW, RATE * round_trip), MAX_WINDOW))
    # Small enough for several to be in a window, and for all connections to end together; not so small that they would
    # better go by NBD. What is sent before the first answer must fit into the smallest buffers of sockets: 128 heads,
    # or 512 requests of NBD.
    return Reach(8, 4 * MIB, window, 128, 512, window)
