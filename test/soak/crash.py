"""Crashes at each point of what clients of all kinds did: make soak T=crash, T='crash --minutes 30 --seed 1000'."""

from __future__ import annotations

import argparse
import itertools
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable

from crash import journal, rounds

__all__ = ["main"]

# What is tried, one after the other; each returns how many disks it rebuilt, and how much had to be there.
KINDS: dict[str, Callable[[Path, int], Any]] = {"file": rounds.crash_file}
for name, crash, ways in (
    ("after", rounds.crash_after, rounds.WAYS),
    ("amid", rounds.crash_amid, ("http", "proxy")),
    ("journal", journal.crash_journal, journal.WAYS),
):
    for way in ways:
        KINDS[f"{name} {way}"] = lambda folder, seed, crash=crash, way=way: crash(folder, way, seed)


def main(arguments: list[str]) -> int:
    """Run rounds until the time is over; return an exit status."""
    parser = argparse.ArgumentParser(prog="crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for how long (10)")
    parser.add_argument("--seed", type=int, default=1000, help="of the first round (1000)")
    parser.add_argument("--only", choices=KINDS, metavar="KIND", help=f"one of: {', '.join(KINDS)}")
    options = parser.parse_args(arguments)
    logging.disable()
    deadline = time.monotonic() + options.minutes * 60
    disks: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    lost = 0
    for seed in itertools.count(options.seed):
        if time.monotonic() > deadline:
            break
        for kind in [options.only] if options.only else KINDS:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found = KINDS[kind](Path(folder), seed)
                except AssertionError as error:
                    lost += 1
                    print(f"make soak T='crash --minutes 0.01 --seed {seed} --only \"{kind}\"': {error}", flush=True)
                else:
                    disks[kind] += found[0]
                    facts[kind] += found[1]
    for kind in disks:
        print(f"{kind}: {disks[kind]} disks rebuilt, {facts[kind]} times something had to be there")
    print(f"{seed - options.seed} rounds, {sum(disks.values())} disks, {sum(facts.values())} facts, {lost} lost")
    return 1 if lost else 0
