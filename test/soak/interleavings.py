"""Many more orders of threads than `make check` tries: interleavings.py [SCENARIO...] [--seconds N] [--seed N]

make soak T='interleavings --seconds 60'
make soak T='interleavings remove --seed 1234'      # this one again
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence

from interleavings import scenarios

# Those before it are tried by make check.
FIRST = 1000

SECONDS = 600


def main(arguments: Sequence[str]) -> int:
    """Run seeds, each scenario in turn, until the time is over; return an exit status."""
    parser = argparse.ArgumentParser(prog="interleavings")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(scenarios.SCENARIOS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long")
    parser.add_argument("--first", type=int, default=FIRST, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    options = parser.parse_args(arguments)
    names = options.scenarios or list(scenarios.SCENARIOS)
    unknown = set(names) - set(scenarios.SCENARIOS)
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}")
    if options.seed is not None:
        return 1 if sum(fails(name, options.seed) for name in names) else 0
    return hunt(names, options.first, options.seconds)


def hunt(names: Sequence[str], seed: int, seconds: float) -> int:
    """Try one seed after the other; return an exit status."""
    deadline = time.monotonic() + seconds
    failed: Counter[str] = Counter()
    count = 0
    while time.monotonic() < deadline:
        for name in names:
            failed[name] += fails(name, seed)
            count += 1
        seed += 1
    print(f"{count} runs of {len(names)} scenarios, {sum(failed.values())} failed; seeds up to {seed - 1}")
    return 1 if sum(failed.values()) else 0


def fails(name: str, seed: int) -> bool:
    """Run a seed; return True, and tell how to do it again, if something does not hold."""
    try:
        scenarios.run(scenarios.SCENARIOS[name], seed)
    except Exception:
        print(f"again: make soak T='interleavings {name} --seed {seed}'", file=sys.stderr)
        traceback.print_exc()
        return True
    return False
