"""Histories of every kind of disk, with tickets that are removed and processes that are killed meanwhile.

make soak T='history --seconds 600'
make soak T='history nbd-qcow2 --seed 12'       # the same choices; what the machine does is another matter
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from history import disks
from history.campaign import run
from real import storage

SECONDS = 900

# What each client does in one history, and how often it is disturbed.
COUNT = 200
REMOVALS = 2
KILLS = 3


def main(arguments: Sequence[str]) -> int:
    """Take histories until the time is over; return an exit status."""
    parser = argparse.ArgumentParser(prog="history")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(disks.KINDS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long")
    parser.add_argument("--seed", type=int, help="only this one")
    options = parser.parse_args(arguments)
    unknown = set(options.kinds) - set(disks.KINDS)
    if unknown:
        parser.error(f"no kind is called {', '.join(sorted(unknown))}")
    # Of the server in this process; the others have files.
    logging.disable(logging.CRITICAL)
    kinds = options.kinds or list(disks.KINDS)
    counts: Counter[str] = Counter()
    failed = rounds = 0
    seed = 1 if options.seed is None else options.seed
    deadline = time.monotonic() + options.seconds
    while True:
        for kind in kinds:
            failed += fails(kind, seed, counts)
            rounds += 1
        seed += 1
        if options.seed is not None or time.monotonic() > deadline:
            break
    print(f"{rounds} histories, {failed} failed: {', '.join(f'{n} {what}' for what, n in counts.most_common())}")
    return 1 if failed else 0


def fails(kind: str, seed: int, counts: Counter[str]) -> bool:
    """Take one history; return True, and tell why, if it could not have been."""
    with tempfile.TemporaryDirectory(prefix=f"history-{kind}-") as folder:
        try:
            counts.update(run(kind, Path(folder), seed, COUNT, REMOVALS, KILLS))
        except storage.Missing as reason:
            print(f"{kind}: skipped, {reason}", file=sys.stderr)
        except Exception:
            print(f"again: make soak T='history {kind} --seed {seed}'", file=sys.stderr)
            traceback.print_exc()
            return True
    return False
