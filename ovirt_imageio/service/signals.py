"""Signals as a queue: none is lost, and none interrupts code that does not expect it.

Knows the signals of the process; knows nothing of what they mean to us.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from types import FrameType
from typing import Optional

__all__ = ["Signals"]

# No signal has this number.
NOTHING = 0


class Signals:
    """Collects the signals that it was made for, from __enter__ to __exit__.

    The interpreter's own handler writes the number of each signal into a socket (signal.set_wakeup_fd), and wait()
    reads it from there: a signal that comes between two waits is found by the next wait().

    Threads: the main one only, but for wake().
    """

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._scope = contextlib.ExitStack()

    def __enter__(self) -> Signals:
        with contextlib.ExitStack() as scope:
            self._reader, self._writer = socket.socketpair()
            for end in self._reader, self._writer:
                end.setblocking(False)
                scope.callback(end.close)
            # A full socket means that hundreds of signals wait: one more changes nothing.
            before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            scope.callback(signal.set_wakeup_fd, before)
            for number in self._numbers:
                scope.callback(signal.signal, number, signal.signal(number, ignore))
            self._scope = scope.pop_all()
        return self

    def __exit__(self, *args: object) -> None:
        self._scope.close()

    def wait(self, timeout: Optional[float] = None) -> Optional[signal.Signals]:
        """Return the next signal; None after `timeout` seconds without one, or after wake()."""
        while True:
            if not select.select([self._reader], [], [], timeout)[0]:
                return None
            number = self._reader.recv(1)[0]
            if number == NOTHING:
                return None
            # Others may have handlers of their own, and their signals are seen here as well.
            if number in self._numbers:
                return signal.Signals(number)

    def wake(self) -> None:
        """Let wait() return without a signal. Threads: any."""
        with contextlib.suppress(BlockingIOError):
            self._writer.send(bytes([NOTHING]))


def ignore(number: int, frame: Optional[FrameType]) -> None:
    """Do nothing: the number is in the socket already."""
