"""How far away the peer of a connection is, as the kernel knows it.

Knows sockets; knows nothing of what is said.
"""

from __future__ import annotations

import socket
import struct

__all__ = ["round_trip"]

# Where struct tcp_info of Linux has tcpi_min_rtt, in microseconds.
MIN_RTT = struct.Struct("@148xI")

# What the kernel says before it has measured any.
UNKNOWN = 0xFFFFFFFF


def round_trip(sock: socket.socket) -> float:
    """Return the seconds that the fastest packet took there and back, 0 if that is not known.

    The handshake is one, so that a server that is busy does not seem far. But the peer may be a relay on the way.
    """
    if sock.family == socket.AF_UNIX:
        return 0.0
    try:
        (micros,) = MIN_RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, MIN_RTT.size))
    except (OSError, struct.error):
        return 0.0  # Not told by kernels before 4.6.
    return 0.0 if micros == UNKNOWN else micros / 1_000_000
