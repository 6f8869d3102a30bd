"""Connect to a server: over TCP, trying every address that its name has, or over a Unix socket.

Knows nothing of what is spoken afterwards.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import Union

__all__ = ["Address", "connect"]

# Host and port, or the path of a Unix socket; one that begins with a zero byte is an abstract name.
Address = Union[tuple[str, int], str]


def connect(address: Address, timeout: float) -> socket.socket:
    """Return a connected socket, with `timeout` set on it; raises OSError, TimeoutError if nobody answers in time.

    All attempts together take no longer than `timeout`, and one silent address leaves time for the others. Resolving
    the name does not count: the system has its own limits for that.
    """
    if isinstance(address, str):
        return connect_unix(address, timeout)
    return connect_tcp(*address, timeout)


def connect_tcp(host: str, port: int, timeout: float) -> socket.socket:
    """Connect to the first address of `host` that answers."""
    deadline = time.monotonic() + timeout
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    error: OSError = OSError(errno.EADDRNOTAVAIL, "The name has no address")
    for left, (family, kind, protocol, _, target) in zip(range(len(infos), 0, -1), infos):
        share = max((deadline - time.monotonic()) / left, 0.001)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(share)
            sock.connect(target)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(timeout)
            return sock
        except OSError as e:
            sock.close()
            error = as_timeout(e)
    raise error


def connect_unix(path: str, timeout: float) -> socket.socket:
    """Connect to a Unix socket.

    Without blocking, the kernel refuses to wait for a server whose queue is full: so we block, for as long as the time
    to send something may take.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time_value(timeout))
        sock.connect(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time_value(0))
        sock.settimeout(timeout)
        return sock
    except OSError as e:
        sock.close()
        raise as_timeout(e) from e


def time_value(seconds: float) -> bytes:
    """Return a struct timeval."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))


def as_timeout(error: OSError) -> OSError:
    """Return the error, as a TimeoutError if that is what it means."""
    if isinstance(error, (TimeoutError, socket.timeout)) or error.errno == errno.EAGAIN:
        return TimeoutError(errno.ETIMEDOUT, "The server does not answer in time")
    return error
