"""How one thread ends what another one waits for: shut the socket down.

Knows sockets; knows nothing of what is said.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import socket
import threading
from collections.abc import Iterator
from typing import Callable

__all__ = ["Lifeline", "shut_down"]


class Lifeline:
    """A thread that may wait for a server for long holds this, and another thread can cut it.

        line = Lifeline()
        sock = connect(address, timeout, line)      # or `with line.holding(sock)` around what blocks on it later
        line.cut()                                  # in another thread: the wait ends, with an OSError

    It stays cut: a thread that wants to wait from then on fails at once.

    Threads: any.
    """

    def __init__(self) -> None:
        self._is_cut = False
        # Held also while waking: a thread that does not wait any more is not woken.
        self._lock = threading.Lock()
        self._wakers: list[Callable[[], None]] = []

    @property
    def is_cut(self) -> bool:
        """True once `cut` was called."""
        return self._is_cut

    def cut(self) -> None:
        """Wake every thread that holds the line. Never blocks; harmless when repeated."""
        with self._lock:
            self._is_cut = True
            for wake in self._wakers:
                wake()

    def check(self) -> None:
        """Raise OSError if the line is cut."""
        if self._is_cut:
            raise ConnectionAbortedError(errno.ECONNABORTED, "The connection is not wanted any more")

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


def shut_down(sock: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Make whatever blocks on the socket return, in both directions unless `how` says otherwise."""
    with contextlib.suppress(OSError):  # The peer was faster to leave, or the socket is closed.
        sock.shutdown(how)
