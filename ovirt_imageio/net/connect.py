"""Connect to a server: over TCP, trying every address that its name has, or over a Unix socket.

Another thread may end the wait: see Lifeline. Knows nothing of what is spoken afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional, Union

from ovirt_imageio.net.timeouts import is_timeout, set_timeout

__all__ = ["Address", "Lifeline", "connect"]

# Host and port, or the path of a Unix socket; one that begins with a zero byte is an abstract name.
Address = Union[tuple[str, int], str]

# Who waits in the queue of a Unix socket cannot be woken, so he looks this often, in seconds.
QUEUE_STEP = 0.25


class Lifeline:
    """What hangs on a server that does not answer holds this, and another thread can cut it.

        line = Lifeline()
        sock = connect(address, timeout, line)      # or `with line.holding(sock)` around what blocks on it later
        line.cut()                                  # in another thread: the wait ends, with an OSError

    It stays cut: who wants to wait from then on fails at once.

    Threads: any.
    """

    def __init__(self) -> None:
        self._is_cut = False
        # Held also while waking: nobody is woken who does not wait any more.
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], None]] = []

    @property
    def is_cut(self) -> bool:
        """True once `cut` was called."""
        return self._is_cut

    def cut(self) -> None:
        """Wake all who hold the line. Never blocks; harmless when repeated."""
        with self._lock:
            self._is_cut = True
            for wake in self._wakers:
                wake()

    def check(self) -> None:
        """Raise OSError if the line is cut."""
        if self._is_cut:
            raise ConnectionAbortedError(errno.ECONNABORTED, "Nobody waits for the connection any more")

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake`, which must not block, when the line is cut during the body. Raises OSError if it is already."""
        with self._lock:
            self.check()
            self._wakers.append(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakers.remove(wake)

    @contextlib.contextmanager
    def holding(self, sock: socket.socket) -> Iterator[None]:
        """Shut the socket down when the line is cut during the body, which may wrap or close it."""
        with sock.dup() as twin, self.waking(functools.partial(shut_down, twin)):
            yield


def connect(address: Address, timeout: float, line: Optional[Lifeline] = None) -> socket.socket:
    """Return a connected socket, with `timeout` set on it; raises OSError, TimeoutError if nobody answers in time.

    All attempts together take no longer than `timeout`, and one silent address leaves time for the others. Resolving
    the name does not count: the system has its own limits for that, and nobody can cut it short.
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
        # Held only now: the kernel lets nobody shut down what has not begun.
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


def shut_down(sock: socket.socket) -> None:
    """Make whatever blocks on the socket fail."""
    with contextlib.suppress(OSError):  # Nobody is there any more.
        sock.shutdown(socket.SHUT_RDWR)


def as_timeout(error: OSError) -> OSError:
    """Return the error, as a TimeoutError if that is what it means."""
    if is_timeout(error):
        return TimeoutError(errno.ETIMEDOUT, "The server does not answer in time")
    return error
