"""A clock that moves when the test says so."""

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
