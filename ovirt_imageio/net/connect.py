"""Connect to a server: over TCP, trying every address that its name has, or over a Unix socket.

Another thread may end the wait: see lifeline.py. Knows nothing of what is spoken afterwards.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import Any, Optional, Union

from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.timeouts import is_timeout, set_timeout

__all__ = ["Address", "connect"]

# Host and port, or the path of a Unix socket; one that begins with a zero byte is an abstract name.
Address = Union[tuple[str, int], str]

# A thread in the queue of a Unix socket cannot be woken, so it looks whether it was cut this often, in seconds.
QUEUE_STEP = 0.25


def connect(address: Address, timeout: float, line: Optional[Lifeline] = None) -> socket.socket:
    """Return a connected socket, with `timeout` set on it; raises OSError, TimeoutError if there is no answer in time.

    All attempts together take no longer than `timeout`, and one silent address leaves time for the others. Resolving
    the name does not count: the system has its own limits for that, and it cannot be cut short.
    """
    line = line or Lifeline()
    if isinstance(address, str):
        return connect_unix(address, timeout, line)
    return connect_tcp(*address, timeout, line)


def connect_tcp(host: str, port: int, timeout: float, line: Lifeline) -> socket.socket:
    """Connect to the first address of `host` that answers."""
    deadline = time.monotonic() + timeout
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    error: OSError = OSError(errno.EADDRNOTAVAIL, "The name has no address")
    for left, (family, kind, protocol, _, target) in zip(range(len(infos), 0, -1), infos):
        share = max((deadline - time.monotonic()) / left, 0.001)
        sock = socket.socket(family, kind, protocol)
        try:
            dial(sock, target, share, line)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(timeout)
            return sock
        except OSError as e:
            sock.close()
            error = as_timeout(e)
    raise error


def dial(sock: socket.socket, target: tuple[Any, ...], timeout: float, line: Lifeline) -> None:
    """Connect a TCP socket, which is left non-blocking."""
    sock.setblocking(False)
    code = sock.connect_ex(target)
    if code == errno.EINPROGRESS:
        # Held only now: what has not begun cannot be shut down.
        with line.holding(sock):
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            if not poll.poll(timeout * 1000):
                raise TimeoutError
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    line.check()
    if code:
        raise OSError(code, os.strerror(code))


def connect_unix(path: str, timeout: float, line: Lifeline) -> socket.socket:
    """Connect to a Unix socket.

    Without blocking, the kernel refuses to wait for a server whose queue is full: so we block, for as long as the time
    to send something may take.
    """
    deadline = time.monotonic() + timeout
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        while True:
            line.check()
            left = max(deadline - time.monotonic(), 0.001)
            set_timeout(sock, min(left, QUEUE_STEP))
            try:
                sock.connect(path)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
        set_timeout(sock, None)
        sock.settimeout(timeout)
        return sock
    except OSError as e:
        sock.close()
        raise as_timeout(e) from e


def as_timeout(error: OSError) -> OSError:
    """Return the error, as a TimeoutError if that is what it means."""
    if is_timeout(error):
        return TimeoutError(errno.ETIMEDOUT, "The server does not answer in time")
    return error
