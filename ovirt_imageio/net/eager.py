"""Receive what comes soon without going to sleep.

A thread that sleeps until its peer answers wakes up some microseconds after the answer: 5 on good hardware, 50 in a
virtual machine, whose idle processor is given back to the host. With one client that is a third of the time of a small
request. So look again and again for a moment before sleeping, as qemu does, too; but only

- as long as that pays: after a look in vain the next waits go to sleep at once, more of them with each failure;
- while no other thread answers a request, or looks: that one needs the processor, and the interpreter;
- on a processor of its own: threads that share one (crowd.py) could not even begin to answer while one of them looks;
- where there is another processor, on which the peer can run.

Knows sockets; knows nothing of what is said.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Callable, Optional

from ovirt_imageio.net import crowd

__all__ = ["EagerSocket", "Processors", "begin_work", "end_work"]

# How long to look. What takes longer gains little, and a look in vain costs this much.
SECONDS = 0.0001

# After this many failures in a row one wait of 2 ** PATIENCE is looked for.
PATIENCE = 6


class Processors:
    """Which threads of a process need a processor now. `is_shared` tells a thread whether others are on its own.

    Threads: any.
    """

    __slots__ = ("can_look", "is_shared", "looking", "workers")

    def __init__(self, count: int, is_shared: Callable[[], bool] = crowd.has_joined) -> None:
        self.can_look = count > 1
        self.is_shared = is_shared
        # The threads that answer a request. A set, as a count could be changed by two threads at once.
        self.workers: set[int] = set()
        # Held by the thread that looks.
        self.looking = threading.Lock()

    def begin_work(self) -> None:
        """Note that this thread has something to do."""
        self.workers.add(threading.get_ident())

    def end_work(self) -> None:
        """Note that this thread waits for something to do, or ends; harmless when repeated."""
        self.workers.discard(threading.get_ident())


# Those of this process.
SHARED = Processors(len(os.sched_getaffinity(0)))
begin_work = SHARED.begin_work
end_work = SHARED.end_work


class EagerSocket:
    """Receives what comes soon from a socket that blocks.

    Threads: one at a time.
    """

    __slots__ = ("_failures", "_processors", "_seconds", "_skip", "_sock")

    def __init__(self, sock: socket.socket, processors: Processors = SHARED, seconds: float = SECONDS) -> None:
        self._sock = sock
        self._processors = processors
        self._seconds = seconds
        self._failures = 0
        # How many waits go by before the next look.
        self._skip = 0

    def recv(self, size: int) -> Optional[bytes]:
        """Return what socket.recv() would return soon, None if it would not."""
        if self._skip:
            self._skip -= 1
            return None
        processors = self._processors
        workers = processors.workers
        own = threading.get_ident() in workers
        if not processors.can_look or len(workers) > own or processors.is_shared():
            return None
        if not processors.looking.acquire(blocking=False):
            return None
        try:
            deadline = time.monotonic() + self._seconds
            while len(workers) <= own:
                try:
                    data = self._sock.recv(size, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        self._failures = min(self._failures + 1, PATIENCE)
                        self._skip = 2**self._failures - 1
                        return None
                else:
                    self._failures = 0
                    return data
            return None
        finally:
            processors.looking.release()
