"""Receive what comes soon without going to sleep.

A thread that sleeps until its peer answers wakes up some microseconds after the answer: 5 on good hardware, 50 in a
virtual machine, whose idle processor is given back to the host. With one client that is a third of the time of a small
request. So look again and again for a moment before sleeping, as qemu does, too; but only

- as long as that pays: who looked in vain goes to sleep at once the next times, more often with each failure;
- while no other thread answers a request, or looks: that one needs the processor, and the interpreter;
- where there is another processor, on which the peer can run.

Knows sockets; knows nothing of what is said.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Callable, Optional, TypeVar

__all__ = ["EagerSocket", "begin_work", "end_work"]

T = TypeVar("T")

# How long to look. What takes longer gains little, and a look in vain costs so much.
SECONDS = 0.0001

# After so many failures in a row one wait of 2 ** PATIENCE is looked for.
PATIENCE = 6

can_look = len(os.sched_getaffinity(0)) > 1

# The threads that answer a request. A set, as a count could be changed by two threads at once.
workers: set[int] = set()

# Held by the one that looks.
looking = threading.Lock()


def begin_work() -> None:
    """Note that this thread has something to do."""
    workers.add(threading.get_ident())


def end_work() -> None:
    """Note that this thread waits for something to do, or ends; harmless when repeated."""
    workers.discard(threading.get_ident())


class EagerSocket:
    """Receives what comes soon from a socket that blocks.

    Threads: one at a time.
    """

    __slots__ = ("_failures", "_skip", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._failures = 0
        # So many waits go by before we look again.
        self._skip = 0

    def recv(self, size: int) -> Optional[bytes]:
        """Return what socket.recv() would return soon, None if it would not."""
        return self._look(self._sock.recv, size)

    def recv_into(self, view: memoryview) -> Optional[int]:
        """Receive what socket.recv_into() would receive soon; return None if it would not."""
        return self._look(self._sock.recv_into, view, 0)

    def _look(self, receive: Callable[..., T], *arguments: object) -> Optional[T]:
        if self._skip:
            self._skip -= 1
            return None
        own = threading.get_ident() in workers
        if not can_look or len(workers) > own or not looking.acquire(blocking=False):
            return None
        try:
            deadline = time.monotonic() + SECONDS
            while len(workers) <= own:
                try:
                    result = receive(*arguments, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        self._failures = min(self._failures + 1, PATIENCE)
                        self._skip = 2**self._failures - 1
                        return None
                else:
                    self._failures = 0
                    return result
            return None
        finally:
            looking.release()
