"""What a bench line is: a name, and some sides that are measured in turn.

    line = Line("copy", "MiB/s", [Side("ours", ours), Side("theirs", theirs)], targets=[Times(2, "theirs")])
    for check in line.checks(line.measure()):
        print(check)

The machine gets warmer, busier and quieter: sides that are measured in turn see the same weather.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Optional

from real.release import Missing

__all__ = ["ROUNDS", "SERVER", "Check", "Line", "Result", "Side", "Times", "cpu_seconds", "digits"]

# The median of so many is not the one where something else ran.
ROUNDS = 5

# How a side calls the process that serves: its CPU time is what others are compared with.
SERVER = "daemon"


@dataclass(frozen=True)
class Result:
    """All samples of one side, and the CPU seconds that its processes took for each of them."""

    side: str
    samples: Sequence[float]
    cpu: Mapping[str, Sequence[float]] = field(default_factory=dict)
    # Why there is no sample.
    missing: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def cpu_median(self, process: str) -> Optional[float]:
        """Return the CPU seconds of a process, None if they were not measured."""
        return statistics.median(self.cpu[process]) if process in self.cpu else None

    def __str__(self) -> str:
        if self.missing:
            return f"{self.side:<10} missing: {self.missing}"
        decimals = digits(self.median)
        spread = f"{min(self.samples):,.{decimals}f} to {max(self.samples):,.{decimals}f}"
        return f"{self.side:<10} {self.median:>12,.{decimals}f}   ({spread})"


@dataclass(frozen=True)
class Side:
    """One of the contenders: `run` takes one sample. `setup` holds what all samples need, and may warm it up.

    Where a setup raises Missing, the line goes on without that side.
    """

    name: str
    run: Callable[[], float]
    setup: Callable[[], AbstractContextManager[object]] = nullcontext
    # The processes whose CPU time counts, by name; asked once they run.
    processes: Callable[[], Mapping[str, int]] = dict


@dataclass(frozen=True)
class Check:
    """What was reached of one target; None if the side to compare with is missing."""

    target: str
    reached: Optional[float]
    is_good: bool

    def __str__(self) -> str:
        if self.reached is None:
            return f"target {self.target}: not measured"
        return f"target {self.target}: {self.reached:.2f} {'ok' if self.is_good else 'MISSED'}"


@dataclass(frozen=True)
class Times:
    """A target: how many times what the other side reaches; or, of a process, at most so many times its CPU time."""

    factor: float
    side: str = "release"
    cpu_of: str = ""

    def check(self, line: Line, results: Sequence[Result]) -> Check:
        """Compare the first side with the one that is meant."""
        less_is_better = bool(self.cpu_of) or line.less_is_better
        what = f"CPU of {self.cpu_of} " if self.cpu_of else ""
        text = f"{what}{'<=' if less_is_better else '>='} {self.factor:g} x {self.side}"
        ours = self._value(results[0])
        theirs = next((self._value(result) for result in results if result.side == self.side), None)
        if ours is None or not theirs:
            return Check(text, None, False)
        reached = ours / theirs
        # More than two digits are noise.
        good = round(reached, 2) <= self.factor if less_is_better else round(reached, 2) >= self.factor
        return Check(text, reached, good)

    def _value(self, result: Result) -> Optional[float]:
        if result.missing:
            return None
        return result.cpu_median(self.cpu_of) if self.cpu_of else result.median


@dataclass(frozen=True)
class Line:
    """One thing that is measured, in `unit`. `target` is what the first side should reach, or stay under."""

    name: str
    unit: str
    sides: Sequence[Side]
    target: float = 0
    less_is_better: bool = False
    rounds: int = ROUNDS
    # How many GiB each sample moves, where that is what is measured.
    gib: float = 0
    about: str = field(default="", compare=False)
    # What it should reach in comparison with others.
    targets: Sequence[Times] = ()
    # Samples that are thrown away.
    warmups: int = 0

    def measure(self) -> list[Result]:
        """Run all sides in turn; return their samples."""
        results = {side.name: Result(side.name, []) for side in self.sides}
        with ExitStack() as stack:
            ready = []
            for side in self.sides:
                try:
                    stack.enter_context(side.setup())
                except Missing as e:
                    results[side.name] = Result(side.name, [], missing=str(e))
                else:
                    ready.append(side)
                    results[side.name] = Result(side.name, [], {name: [] for name in side.processes()})
            for number in range(self.warmups + self.rounds):
                for side in ready:
                    sample(side, results[side.name] if number >= self.warmups else None)
        return list(results.values())

    def checks(self, results: Sequence[Result]) -> Iterator[Check]:
        """Yield what was reached of each target."""
        if self.target and not results[0].missing:
            ours = results[0].median
            good = ours <= self.target if self.less_is_better else ours >= self.target
            yield Check(f"{'<=' if self.less_is_better else '>='} {self.target:,g} {self.unit}", ours, good)
        for target in self.targets:
            yield target.check(self, results)

    def cpu_per_gib(self, results: Sequence[Result]) -> Iterator[tuple[str, float]]:
        """Yield the CPU seconds that the server of each side takes for a GiB; nothing for a line that moves none."""
        for result in results if self.gib else ():
            seconds = None if result.missing else result.cpu_median(SERVER)
            if seconds is not None:
                yield result.side, seconds / self.gib

    def ratios(self, results: Sequence[Result]) -> Iterator[tuple[str, float]]:
        """Yield how the first side compares with each of the others."""
        if not results[0].missing:
            for other in results[1:]:
                if not other.missing and other.median:
                    yield other.side, results[0].median / other.median


def sample(side: Side, result: Optional[Result]) -> None:
    """Take one sample of a side, and add it to its result."""
    before = {name: cpu_seconds(pid) for name, pid in side.processes().items()}
    value = side.run()
    if result is not None:
        result.samples.append(value)
        for name, pid in side.processes().items():
            result.cpu[name].append(cpu_seconds(pid) - before[name])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process until now, user and system, also that of its threads that have ended."""
    # The clock of a process as clock_getcpuclockid(3) makes it. /proc/PID/stat counts hundredths of a second only.
    return time.clock_gettime(~pid << 3 | 2)


def digits(value: float) -> int:
    """Return how many decimals make sense."""
    return 0 if value >= 100 else 1 if value >= 10 else 3
