"""Time-outs that the kernel keeps: a socket that blocks, but not for longer than it may.

Python's own time-outs ask the kernel before each receive and send whether it would block: twice the system calls.

Knows sockets; knows nothing of what waits.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import sys
import termios
from typing import Optional

__all__ = [
    "get_timeout",
    "has_left",
    "is_ready",
    "is_timeout",
    "set_receive_timeout",
    "set_send_timeout",
    "set_timeout",
    "unsent",
]

# The kernel takes zero for ever.
SHORTEST = 0.001

TIMEVAL = struct.Struct("@ll")
FOR_EVER = TIMEVAL.pack(0, 0)

# An int for the kernel to fill in.
NONE = bytes(struct.calcsize("@i"))


def set_timeout(sock: socket.socket, seconds: Optional[float]) -> None:
    """Let each receive and each send on the socket wait for that long; then it raises what is_timeout() knows.

    A send that could place a part returns how much that was. None: wait for ever.
    """
    sock.settimeout(None)
    set_receive_timeout(sock, seconds)
    set_send_timeout(sock, seconds)


def set_receive_timeout(sock: socket.socket, seconds: Optional[float]) -> None:
    """Let each receive wait for that long, on a socket that blocks."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(seconds))


def set_send_timeout(sock: socket.socket, seconds: Optional[float]) -> None:
    """Let each send wait for that long, on a socket that blocks."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(seconds))


def get_timeout(sock: socket.socket) -> float:
    """Return what set_receive_timeout() set."""
    seconds, micros = TIMEVAL.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.size))
    return float(seconds + micros / 1_000_000)


def is_timeout(error: OSError) -> bool:
    """True if the error tells that nothing happened in time, on our clock or on the kernel's."""
    # Python 3.9 has one time-out error for sockets, and another one for everything else.
    return isinstance(error, (TimeoutError, socket.timeout)) or error.errno == errno.EAGAIN


def timeval(seconds: Optional[float]) -> bytes:
    """Return a struct timeval."""
    if seconds is None:
        return FOR_EVER
    seconds = max(seconds, SHORTEST)
    return TIMEVAL.pack(int(seconds), int(seconds % 1 * 1_000_000))


def unsent(sock: socket.socket) -> int:
    """Return how many bytes the kernel holds that the peer has not taken, or over TCP not acknowledged.

    A socket that is closed holds none.
    """
    try:
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, NONE), sys.byteorder)
    except (OSError, ValueError):
        return 0


def has_left(sock: socket.socket) -> bool:
    """Return True if the peer will send nothing more, though some of it may still be to receive. Never blocks."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


def is_ready(sock: socket.socket, seconds: Optional[float]) -> bool:
    """Return True if the socket has something to read, is broken or at its end within this many seconds, if any."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
