"""The thread that looks after transfers on which something runs, a few times per second.

Tickets that only lie there cost it nothing: a transfer asks for attention when something begins to run on it, and has
it until nothing does. With 20,000 idle tickets, looking at each took 23 % of a processor.

Knows of a transfer only that it has a tick().
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Optional, Protocol

__all__ = ["Attended", "Watchdog"]

log = logging.getLogger("tickets")


class Attended(Protocol):
    """What asks for attention."""

    def tick(self) -> bool:
        """Do what time asks for; return whether this is to be called again soon."""


class Watchdog:
    """Calls tick() of what asked for attention, and `look_around` before, every `seconds`.

    Threads: any number at once may attend(); one at a time calls the rest.
    """

    def __init__(self, look_around: Callable[[], None], seconds: float) -> None:
        self._look_around = look_around
        self._seconds = seconds
        # Those that asked since the last look. Appending is atomic, and needs no lock.
        self._asking: deque[Attended] = deque()
        self._attended: set[Attended] = set()
        self._stopping = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def attend(self, attended: Attended) -> None:
        """Look after something from the next look on, until its tick() returns False."""
        self._asking.append(attended)

    def look(self) -> None:
        """Do what time asks for, once. Called by the thread, or, without it, by one thread at a time."""
        self._look_around()
        while self._asking:
            self._attended.add(self._asking.popleft())
        self._attended = {attended for attended in self._attended if self._tick(attended)}

    def start(self) -> None:
        """Start the thread."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, if there is one, and wait for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _tick(self, attended: Attended) -> bool:
        try:
            return attended.tick()
        except Exception:
            # The others, which come after it, must not wait for it to succeed.
            log.exception("The watchdog failed, going on")
            return True

    def _watch(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self.look()
            except Exception:
                # Whatever it was: without this thread nothing would ever be aborted again.
                log.exception("The watchdog failed, going on")
