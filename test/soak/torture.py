"""Each call of the system fails in turn: make soak T=torture, T='torture --case "NAME"', T='torture --minutes 60'.

All cases take more than an hour. T='torture --share 2/5' runs the second fifth of them, whenever there is time for it:
which share a case belongs to depends on its name alone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torture.cases import Case, Torturer
from torture.copies import COPIES, CopyCase, CopyTorturer
from torture.house import BACKENDS, LISTENERS, House
from torture.operations import OPERATIONS
from torture.seam import Seam

__all__ = ["main"]

# After so many failures a look at them is worth more than the rest.
MOST_FAILURES = 30

CLIENT = "client"

# Where direct I/O works, so not in a folder of memory.
FOLDER = "/var/tmp"


def main(arguments: list[str]) -> int:
    """Run all cases, in an order that a seed decides, until the time is over; return an exit status."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=80, help="for how long at most, all parts together (80)")
    parser.add_argument("--seed", type=int, default=1, help="of the order (1)")
    parser.add_argument("--only", choices=[*BACKENDS, CLIENT], help="a backend of the service, or the client library")
    parser.add_argument("--share", type=parse_share, default=(1, 1), metavar="K/N", help="the Kth of N shares of them")
    parser.add_argument("--case", help="one case, by its name")
    options = parser.parse_args(arguments)
    logging.disable()
    campaign = Campaign(options.minutes * 60, random.Random(options.seed), options.share)
    if options.case:
        where = options.case.partition("-")[0]
        kind: Any = CopyCase if where == CLIENT else Case
        campaign.run(where, [kind.parse(options.case)])
    else:
        parts = [options.only] if options.only else [*BACKENDS, CLIENT]
        for count, part in enumerate(parts):
            campaign.part_of_time = 1 / (len(parts) - count)
            campaign.run(part, None)
    print(f"{sum(campaign.outcomes.values())} cases, {campaign.failures} failed: {dict(campaign.outcomes)}")
    return 1 if campaign.failures else 0


class Campaign:
    """Runs cases, and counts what came of them."""

    def __init__(self, seconds: float, dice: random.Random, share: tuple[int, int]) -> None:
        self._end = time.monotonic() + seconds
        self._dice = dice
        self._share = share
        self.part_of_time = 1.0
        self.failures = 0
        self.outcomes: Counter[str] = Counter()

    def run(self, part: str, cases: Any) -> None:
        """Run the cases of a part, by default all of the share, as long as its part of the time lasts."""
        deadline = time.monotonic() + (self._end - time.monotonic()) * self.part_of_time
        done = 0
        while self.failures < MOST_FAILURES:
            # After a failure nothing can be believed: begin anew.
            with self._torturer(part) as torturer:
                if cases is None:
                    cases = [case for case in plan(part, torturer) if is_in_share(str(case), *self._share)]
                    self._dice.shuffle(cases)
                    print(f"{part}: {len(cases)} cases", flush=True)
                done += sum(1 for _ in self._run_some(torturer, iter(cases[done:]), deadline))
                self.outcomes.update(torturer.outcomes)
            if done == len(cases) or time.monotonic() > deadline:
                break
        print(f"{part}: {done} of them were run", flush=True)

    def _run_some(self, torturer: Any, cases: Iterator[Any], deadline: float) -> Iterator[Any]:
        """Run cases up to the first one that fails, and yield those that were run."""
        for case in cases:
            if time.monotonic() > deadline:
                return
            yield case
            try:
                torturer.run(case)
            except AssertionError as error:
                self.failures += 1
                print(f"make soak T='torture --case \"{case}\"': {error}", flush=True)
                return

    @contextlib.contextmanager
    def _torturer(self, part: str) -> Iterator[Any]:
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder, Seam() as seam:
            if part == CLIENT:
                with CopyTorturer(Path(folder), seam) as copies:
                    yield copies
            else:
                with House(Path(folder), part) as house:
                    torturer = Torturer(house, seam)
                    with torturer.listening():
                        yield torturer


def parse_share(text: str) -> tuple[int, int]:
    """Return K and N of "K/N"."""
    number, _, count = text.partition("/")
    if not 1 <= int(number) <= int(count):
        raise ValueError(text)
    return int(number), int(count)


def is_in_share(name: str, number: int, count: int) -> bool:
    """Is the case of this name in this one of so many shares?"""
    return zlib.crc32(name.encode()) % count == number - 1


def plan(part: str, torturer: Any) -> list[Any]:
    """Return all cases of a part."""
    if part == CLIENT:
        return [case for copy in COPIES for case in torturer.plan(copy)]
    return [case for listener in LISTENERS for operation in OPERATIONS for case in torturer.plan(listener, operation)]
