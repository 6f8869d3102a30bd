"""Each process is killed with -9 at random moments, while clients work: kills.py [--rounds N] [--seconds N] [VICTIM...]

    daemon    one that serves a file
    qemu-nbd  behind a daemon, with a qcow2 image, of which it keeps a part in its memory
    origin    a daemon that serves a file to a proxy
    proxy     the daemon before it

What was killed is started again, and clients go on. What they saw is a history (test/history/): whatever a flush or an
answer said was done must be there, and nothing else may be.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import random
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from fakes.waiting import DEADLINE, wait_until
from history.campaign import judge
from history.clients import drive
from history.disks import Served, served

# Which disk is behind a victim, and what that calls it.
VICTIMS = {
    "daemon": ("ext4-512", "host"),
    "qemu-nbd": ("nbd-qcow2", "qemu-nbd"),
    "origin": ("proxy", "host"),
    "proxy": ("proxy", "proxy"),
}

# In one history.
KILLS = 50

# How many answers clients get between two kills, and how much longer they may work.
MOST_ANSWERS = 100
LONGEST_SECONDS = 0.5

ENDLESS = 2**32

# After so many a look at them is worth more than the rest.
MOST_FAILURES = 5


def main(arguments: list[str]) -> int:
    """Kill each victim so many times; return an exit status."""
    parser = argparse.ArgumentParser(prog="kills")
    parser.add_argument("victims", nargs="*", metavar="VICTIM", help=", ".join(VICTIMS))
    parser.add_argument("--rounds", type=int, default=200, help="of each victim")
    parser.add_argument("--seconds", type=float, default=1200, help="at most, for each victim")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args(arguments)
    unknown = set(options.victims) - set(VICTIMS)
    if unknown:
        parser.error(f"no victim is called {', '.join(sorted(unknown))}")
    logging.disable(logging.CRITICAL)
    print(f"seed {options.seed}", flush=True)
    dice = random.Random(options.seed)
    failed = 0
    for victim in options.victims or VICTIMS:
        failed += campaign(victim, options.rounds, time.monotonic() + options.seconds, dice)
    return 1 if failed else 0


def campaign(victim: str, rounds: int, deadline: float, dice: random.Random) -> int:
    """Kill one victim, print what was done meanwhile, and return how many histories were wrong."""
    counts: Counter[str] = Counter()
    killed = failed = 0
    while killed < rounds and time.monotonic() < deadline:
        kills = min(KILLS, rounds - killed)
        try:
            counts.update(take(victim, kills, dice))
            killed += kills
        except Exception:
            traceback.print_exc()
            failed += 1
            if failed == MOST_FAILURES:
                break
    done = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{victim}: killed {killed} times, {failed} failures: {done}", flush=True)
    return failed


def take(victim: str, kills: int, dice: random.Random) -> Counter[str]:
    """Take one history; return how often what was done. Raises AssertionError if it could not have been."""
    kind, process = VICTIMS[victim]
    seed = dice.randrange(2**32)
    with tempfile.TemporaryDirectory(prefix=f"kills-{victim}-") as folder, served(kind, Path(folder)) as disk:
        with working(disk, seed):
            for _ in range(kills):
                # Counted in answers: on a busy machine the restart takes most of the time, and clients get little done.
                enough = successes(disk) + dice.randrange(MOST_ANSWERS)
                wait_until(lambda enough=enough: successes(disk) >= enough and nobody_is_left_out(disk))
                time.sleep(dice.uniform(0, LONGEST_SECONDS))
                disk.kill(process)
        return judge(disk, seed)


def successes(disk: Served) -> int:
    """Return how much was done, and answered."""
    counts = dict(disk.recorder.counts)
    return sum(count for what, count in counts.items() if what != "broken" and not what.endswith("unknown"))


def nobody_is_left_out(disk: Served) -> bool:
    """Return True if each client got something done lately, though the disk was killed again and again."""
    return time.monotonic() - min(disk.recorder.well.copy().values(), default=-math.inf) < DEADLINE / 3


@contextlib.contextmanager
def working(disk: Served, seed: int) -> Iterator[None]:
    """Let clients work within the block; raise what went wrong with them."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            drive(disk.recorder, disk.makers, seed, ENDLESS)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        disk.recorder.is_over.set()
        thread.join()
    if errors:
        raise errors[0]
