"""Clocks that move when the test says so."""

from __future__ import annotations


class FakeClock:
    """Call it for the time; advance() moves it, but never back."""

    def __init__(self, now: float = 1000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class FakeWallClock:
    """The time of day, which may be set: it goes on with a clock that only grows."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._offset = 0.0

    def __call__(self) -> float:
        return self._clock() + self._offset

    def set(self, seconds: float) -> None:
        """Set the clock forward, or back if that is negative."""
        self._offset += seconds
