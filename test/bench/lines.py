"""What a bench line is: a name, and one or two sides that are measured in turn.

    line = Line("copy", "MiB/s", [Side("ours", ours), Side("theirs", theirs)], target=1000)
    line.measure()

The machine gets warmer, busier and quieter: two sides that are measured in turn see the same weather.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field

__all__ = ["ROUNDS", "Line", "Result", "Side"]

# The median of so many is not the one where something else ran.
ROUNDS = 5


@dataclass(frozen=True)
class Result:
    """All samples of one side."""

    side: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def __str__(self) -> str:
        spread = f"{min(self.samples):,.{digits(self.median)}f} to {max(self.samples):,.{digits(self.median)}f}"
        return f"{self.side:<10} {self.median:>12,.{digits(self.median)}f}   ({spread})"


@dataclass(frozen=True)
class Side:
    """One of the contenders: `run` takes one sample. `setup` holds what all samples need, and may warm it up."""

    name: str
    run: Callable[[], float]
    setup: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Line:
    """One thing that is measured, in `unit`. `target` is what the first side should reach, or stay under."""

    name: str
    unit: str
    sides: Sequence[Side]
    target: float = 0
    less_is_better: bool = False
    rounds: int = ROUNDS
    about: str = field(default="", compare=False)

    def measure(self) -> list[Result]:
        """Run all sides in turn; return their samples."""
        samples: dict[str, list[float]] = {side.name: [] for side in self.sides}
        with ExitStack() as stack:
            for side in self.sides:
                stack.enter_context(side.setup())
            for _ in range(self.rounds):
                for side in self.sides:
                    samples[side.name].append(side.run())
        return [Result(name, values) for name, values in samples.items()]

    def verdict(self, results: Sequence[Result]) -> str:
        """Return what the first side reached of the target, and how it compares with the second one."""
        ours = results[0].median
        words = []
        if self.target:
            is_good = ours <= self.target if self.less_is_better else ours >= self.target
            words.append(
                f"target {'<=' if self.less_is_better else '>='} {self.target:,g}: {'ok' if is_good else 'MISSED'}"
            )
        if len(results) == 2 and results[1].median:
            words.append(f"{ours / results[1].median:.2f} times {results[1].side}")
        return ", ".join(words)


def digits(value: float) -> int:
    """Return how many decimals make sense."""
    return 0 if value >= 100 else 1 if value >= 10 else 3
