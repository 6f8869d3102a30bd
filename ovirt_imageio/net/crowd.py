"""Threads that answer small requests at the same time share one processor.

The interpreter runs one thread at a time, and each call of the system hands it on. A thread on another processor must
be woken for that, which costs more than most calls, and then runs for some microseconds. On one processor the thread
that made the call most often goes on, and nobody is woken: with 16 connections, that halves what a small request costs.

So a thread that does brief things, while others do so in turn with it, joins the crowd, on a processor that the kernel
chose. It leaves before it does anything else: that may need all processors, and threads and processes that it starts
would inherit its place.

Knows threads and processors; knows nothing of what they do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Collection
from typing import Optional

__all__ = ["Crowd", "Scheduler", "has_joined", "leave", "settle"]

log = logging.getLogger("crowd")

# A thread joins when so many brief things of others come between two of its own, on average, and leaves when that are
# fewer than FEW. Between those of one of two clients that do the same comes one.
MANY = 0.75
FEW = 0.4

# More of them count no more: a thread that did nothing for an hour shall not seem to be in company.
MOST = 4

# How many of its own that average is of; those before count less and less.
SPAN = 8

# So many seconds the crowd stays on a processor, which another program may need; then one of its threads is let go, to
# see where the kernel puts it.
STAY = 1.0


class Scheduler:
    """What the kernel knows of the calling thread.

    Threads: any.
    """

    def allowed(self) -> Collection[int]:
        """Return the processors on which it may run."""
        return os.sched_getaffinity(0)

    def current(self) -> int:
        """Return the processor on which it runs."""
        with open("/proc/thread-self/stat", "rb") as file:
            # Field 39; the second one, a name in parentheses, may contain anything.
            return int(file.read().rpartition(b")")[2].split()[36])

    def move(self, processors: Collection[int]) -> None:
        """Let it run on these processors only."""
        os.sched_setaffinity(0, processors)


class Place:
    """Where one thread is, and who is there.

    Threads: its own.
    """

    __slots__ = ("company", "home", "is_scout", "processor", "seen")

    def __init__(self) -> None:
        # How many brief things of others come between two of its own, on average.
        self.company = 0.0
        # The number of the last one.
        self.seen = 0
        # Where it may run when it leaves the crowd; None outside of it.
        self.home: Optional[Collection[int]] = None
        # Where the crowd was when it came, or went along.
        self.processor = -1
        # Is it let go for once?
        self.is_scout = False


class Places(threading.local):
    """The place of each thread, made when it is asked for first."""

    def __init__(self) -> None:
        self.own = Place()


class Crowd:
    """Threads on one processor.

    Threads: any. There is no lock: two threads that choose a processor at once are both right, and a number that is
    counted once too little changes an average.
    """

    def __init__(self, scheduler: Optional[Scheduler] = None) -> None:
        self._scheduler = scheduler or Scheduler()
        self._places = Places()
        # How many brief things were done.
        self._count = 0
        # Where the crowd is, and until when.
        self._processor = -1
        self._until = 0.0
        # False where threads cannot be moved, or there is nowhere to go.
        self._is_possible = len(self._scheduler.allowed()) > 1

    def settle(self, *, is_brief: bool, now: float) -> None:
        """Go where this thread belongs: it is about to do something, at this time."""
        if not is_brief:
            self.leave()
            return
        place = self._places.own
        others = min(self._count - place.seen, MOST)
        self._count = place.seen = self._count + 1
        place.company += (others - place.company) / SPAN
        if place.home is None:
            if place.company >= MANY and self._is_possible:
                self._go(place, now)
        elif place.company < FEW:
            self.leave()
        elif place.is_scout or now >= self._until or place.processor != self._processor:
            self._go(place, now)

    def leave(self) -> None:
        """Let this thread run wherever it could before it joined the crowd."""
        place = self._places.own
        if place.home is not None:
            home, place.home = place.home, None
            place.company = 0
            place.is_scout = False
            with contextlib.suppress(OSError):
                self._scheduler.move(home)

    def has_joined(self) -> bool:
        """True if this thread is in the crowd."""
        return self._places.own.home is not None

    def _go(self, place: Place, now: float) -> None:
        """Go where the crowd is, or find out where it is better."""
        try:
            if place.home is None:
                place.home = self._scheduler.allowed()
                if now >= self._until:
                    self._choose(now)
                self._take(place)
            elif place.is_scout:
                place.is_scout = False
                self._choose(now)
                self._take(place)
            elif now >= self._until:
                # The others stay until the kernel has put this one somewhere.
                self._until = now + STAY
                place.is_scout = True
                self._scheduler.move(place.home)
            else:
                self._take(place)
        except OSError as error:
            # A processor that was taken away, or a filter of system calls.
            log.info("Threads are not moved to one processor: %s", error)
            self._is_possible = False
            self.leave()

    def _choose(self, now: float) -> None:
        self._processor = self._scheduler.current()
        self._until = now + STAY

    def _take(self, place: Place) -> None:
        place.processor = self._processor
        self._scheduler.move((place.processor,))


# That of this process.
SHARED = Crowd()
settle = SHARED.settle
leave = SHARED.leave
has_joined = SHARED.has_joined
