"""How often, how long, how much and how fast.

A Clock times what happens on one connection and prints itself when that closes; a RateMeter tells the current rate of
something that moves.

May know nothing of the package but units.
"""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import Callable, Optional

from ovirt_imageio import units

__all__ = ["Clock", "NullClock", "RateMeter", "Stat"]


class Stat:
    """What one kind of event cost so far: completed `ops`, `seconds`, `bytes`.

    A context manager that starts and stops itself; see Clock.run().
    """

    __slots__ = ("_begun", "_now", "_spent", "_started", "bytes", "name", "ops")

    def __init__(self, name: str, now: Callable[[], float], begun: dict[Stat, float]) -> None:
        self.name = name
        self.ops = 0
        self.bytes = 0
        self._now = now
        self._spent = 0.0
        self._started: Optional[float] = None
        # The stats that began since the clock was marked, with what was spent before; all stats of a clock share it.
        self._begun = begun

    @property
    def is_running(self) -> bool:
        """True between start and stop."""
        return self._started is not None

    @property
    def seconds(self) -> float:
        """The time of all stretches, the current one included."""
        return self._spent if self._started is None else self._spent + self._now() - self._started

    def count(self, nbytes: int) -> None:
        """Add bytes that were moved."""
        self.bytes += nbytes

    def start(self) -> None:
        """Begin a stretch that no block can hold."""
        self.__enter__()

    def stop(self) -> None:
        """End it."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Stat:
        if self._started is not None:
            raise RuntimeError(f"{self.name} was started already")
        self._begun.setdefault(self, self._spent)
        self._started = self._now()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        # A stretch that was not completed costs time, but is not counted.
        if self._started is None:
            raise RuntimeError(f"{self.name} was not started")
        self._spent += self._now() - self._started
        self._started = None
        if kind is None:
            self.ops += 1

    def __str__(self) -> str:
        seconds = self.seconds
        text = f"{self.name} {self.ops} ops, {seconds:.6f} s"
        if self.bytes:
            # What is too fast for the clock took one tick of what we print.
            text += f", {units.size(self.bytes)}, {units.size(self.bytes / max(seconds, 1e-6))}/s"
        return f"[{text}]"


class Clock:
    """Times events by name; str() shows them in the order of their first use.

    Threads: one at a time.

    >>> clock = Clock()
    >>> with clock.run("read") as stat:
    ...     stat.count(2 * units.MiB)
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._stats: dict[str, Stat] = {}
        self._begun: dict[Stat, float] = {}
        self._marked = 0.0

    def run(self, name: str) -> Stat:
        """Return what times one stretch of `name` in a with block."""
        stat = self._stats.get(name)
        if stat is None:
            stat = self._stats[name] = Stat(name, self._now, self._begun)
        return stat

    def start(self, name: str) -> Stat:
        """Begin a stretch that no block can hold."""
        stat = self.run(name)
        stat.start()
        return stat

    def stop(self, name: str) -> float:
        """End it; return the seconds of all stretches of `name`."""
        stat = self._stats.get(name)
        if stat is None:
            raise RuntimeError(f"{name} was not started")
        stat.stop()
        return stat.seconds

    def mark(self) -> None:
        """Let since_mark() and elapsed() begin here."""
        self._begun.clear()
        self._marked = self._now()

    def since_mark(self) -> list[tuple[str, float]]:
        """Return names and seconds of what began since the mark, in that order."""
        return [(stat.name, stat.seconds - before) for stat, before in self._begun.items()]

    def elapsed(self) -> float:
        """Return the seconds since the mark."""
        return self._now() - self._marked

    def __str__(self) -> str:
        return " ".join(map(str, self._stats.values()))


class NullClock(Clock):
    """Records nothing, shows nothing."""

    def run(self, name: str) -> Stat:
        """Return a stat that is thrown away."""
        return Stat(name, self._now, {})

    def stop(self, name: str) -> float:
        """Stop nothing."""
        return 0.0


class RateMeter:
    """The current rate of a counter that is looked at now and then.

    Threads: one at a time.
    """

    # Long enough to bridge the pauses of a normal transfer, short enough to be called current.
    WINDOW = 5.0

    # Looks that follow each other faster than this share a sample, so that there are few.
    STEP = 0.1

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=round(self.WINDOW / self.STEP) + 2)
        self._latest = (0.0, 0)

    def sample(self, now: float, count: int) -> None:
        """Note that the counter stands at `count`."""
        samples = self._samples
        if samples and now - samples[-1][0] >= self.WINDOW:
            # The last look is too long ago: what happened then is not the current rate.
            samples.clear()
        if samples and samples[0][1] == count:
            # Nothing moved: what moves next is not slower because it begins late.
            samples.clear()
        while len(samples) > 1 and now - samples[1][0] >= self.WINDOW:
            samples.popleft()
        self._latest = (now, count)
        if not samples or now - samples[-1][0] >= self.STEP:
            samples.append(self._latest)

    def rate(self) -> float:
        """Return the growth per second over the window, or since it began in the window."""
        if not self._samples:
            return 0.0
        (start, first), (end, last) = self._samples[0], self._latest
        return (last - first) / (end - start) if end > start else 0.0
