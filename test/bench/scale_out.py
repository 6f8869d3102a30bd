"""Many transfers over many daemons, some of which fail: what it costs, computed from what one daemon can do.

    python3 test/bench/scale_out.py --help

Each daemon shares its rate evenly among its transfers. A transfer goes to a daemon by the hash of its ticket, among
those that are up; when its daemon fails, it goes on with another one after a pause, from the last piece that was
acknowledged. Time passes from event to event: nothing is sent.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
from dataclasses import dataclass, field

__all__ = ["Outcome", "Plan", "simulate"]

MIB = 1024**2
GIB = 1024**3


@dataclass(frozen=True)
class Plan:
    """What is simulated. Times are seconds, sizes bytes."""

    transfers: int = 10_000
    daemons: int = 100
    # Of one daemon over HTTPS with many connections, and of one client.
    rate: float = 1000 * MIB
    client_rate: float = 110 * MIB
    mean_size: float = 20 * GIB
    # When the transfers arrive: all within this time.
    window: float = 3600
    # Mean time between failures of one daemon, and how long it is away.
    mtbf: float = 24 * 3600
    repair: float = 30
    # How long a client takes to notice, and to be served elsewhere; what is sent again then.
    pause: float = 2
    piece: float = 4 * MIB
    seed: int = 1


@dataclass
class Daemon:
    """A queue in which all are served at once: `served` bytes of each transfer since the start."""

    is_up: bool = True
    served: float = 0
    since: float = 0
    # By how many bytes must have been served until they end: (that, number of the transfer).
    queue: list[tuple[float, int]] = field(default_factory=list)
    # To tell an event that was overtaken by a change.
    version: int = 0


@dataclass
class Outcome:
    """What came of it."""

    ended: int = 0
    makespan: float = 0
    failures: int = 0
    moved: int = 0
    sent_again: float = 0
    total: float = 0
    # How much longer each took than alone.
    slowdowns: list[float] = field(default_factory=list)

    def describe(self) -> str:
        """Return it in a few lines."""
        slow = sorted(self.slowdowns)
        middle, late = slow[len(slow) // 2], slow[int(len(slow) * 0.99)]
        return "\n".join(
            [
                f"transfers that ended        {self.ended}",
                f"bytes                       {self.total / 1024**4:.1f} TiB, in {self.makespan / 3600:.2f} hours",
                f"failures of daemons         {self.failures}, which {self.moved} transfers had to leave",
                f"sent again                  {self.sent_again / GIB:.1f} GiB, "
                f"{self.sent_again / self.total * 100:.4f} % of all",
                f"longer than alone           {middle:.2f} times (median), {late:.2f} (99 %), {slow[-1]:.2f} (most)",
            ]
        )


class Simulation:
    """One run. Threads: one."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        self.daemons = [Daemon() for _ in range(plan.daemons)]
        self.events: list[tuple[float, int, str, int, int]] = []
        self.order = itertools.count()
        self.outcome = Outcome()
        sizes = (self.chance.lognormvariate(0, 1.2) for _ in range(plan.transfers))
        scaled = list(sizes)
        factor = plan.mean_size * plan.transfers / sum(scaled)
        self.left = [size * factor for size in scaled]
        self.sizes = list(self.left)
        self.begun = [self.chance.random() * plan.window for _ in range(plan.transfers)]
        self.outcome.total = sum(self.sizes)
        # Its ticket hashes to this.
        self.keys = [self.chance.random() for _ in range(plan.transfers)]

    def run(self) -> Outcome:
        """Let time pass until all transfers have ended."""
        for number, when in enumerate(self.begun):
            self._plan(when, "arrive", number)
        for number in range(self.plan.daemons):
            self._plan(self.chance.expovariate(1 / self.plan.mtbf), "fail", number)
        while self.outcome.ended < self.plan.transfers:
            now, _, kind, number, version = heapq.heappop(self.events)
            getattr(self, f"_{kind}")(now, number, version)
            self.outcome.makespan = now
        return self.outcome

    def _plan(self, when: float, kind: str, number: int, version: int = 0) -> None:
        heapq.heappush(self.events, (when, next(self.order), kind, number, version))

    def _share(self, daemon: Daemon) -> float:
        """Return how many bytes per second each transfer of a daemon gets."""
        return min(self.plan.client_rate, self.plan.rate / max(1, len(daemon.queue)))

    def _advance(self, number: int, now: float) -> Daemon:
        """Account for what a daemon served until now."""
        daemon = self.daemons[number]
        daemon.served += (now - daemon.since) * self._share(daemon) if daemon.queue else 0
        daemon.since = now
        return daemon

    def _expect(self, number: int, now: float) -> None:
        """Plan when the next transfer of a daemon ends."""
        daemon = self.daemons[number]
        daemon.version += 1
        if daemon.queue:
            left = max(0.0, daemon.queue[0][0] - daemon.served)
            self._plan(now + left / self._share(daemon), "end", number, daemon.version)

    def _arrive(self, now: float, number: int, version: int) -> None:
        up = [index for index, daemon in enumerate(self.daemons) if daemon.is_up]
        if not up:
            self._plan(now + self.plan.pause, "arrive", number)
            return
        chosen = up[int(self.keys[number] * len(up))]
        daemon = self._advance(chosen, now)
        heapq.heappush(daemon.queue, (daemon.served + self.left[number], number))
        self._expect(chosen, now)

    def _end(self, now: float, number: int, version: int) -> None:
        if version != self.daemons[number].version:
            return
        daemon = self._advance(number, now)
        _, transfer = heapq.heappop(daemon.queue)
        self.outcome.ended += 1
        alone = self.sizes[transfer] / min(self.plan.client_rate, self.plan.rate)
        self.outcome.slowdowns.append((now - self.begun[transfer]) / alone)
        self._expect(number, now)

    def _fail(self, now: float, number: int, version: int) -> None:
        daemon = self._advance(number, now)
        daemon.is_up = False
        self.outcome.failures += 1
        for goal, transfer in daemon.queue:
            left = max(0.0, goal - daemon.served)
            # What was under way is sent again; never more than there was.
            again = min(self.plan.piece, self.sizes[transfer] - left)
            self.left[transfer] = left + again
            self.outcome.sent_again += again
            self.outcome.moved += 1
            self._plan(now + self.plan.pause, "arrive", transfer)
        daemon.queue = []
        daemon.version += 1
        self._plan(now + self.plan.repair, "return", number)

    def _return(self, now: float, number: int, version: int) -> None:
        daemon = self.daemons[number]
        daemon.is_up, daemon.since = True, now
        self._plan(now + self.chance.expovariate(1 / self.plan.mtbf), "fail", number)


def simulate(plan: Plan) -> Outcome:
    """Return what comes of a plan."""
    return Simulation(plan).run()


def main(arguments: list[str]) -> int:
    """Run it; return an exit status."""
    default = Plan()
    parser = argparse.ArgumentParser(prog="scale_out")
    parser.add_argument("--transfers", type=int, default=default.transfers)
    parser.add_argument("--daemons", type=int, default=default.daemons)
    parser.add_argument("--rate", type=float, default=default.rate / MIB, help="of one daemon, MiB/s")
    parser.add_argument("--mtbf", type=float, default=default.mtbf / 3600, help="of one daemon, hours")
    parser.add_argument("--repair", type=float, default=default.repair, help="seconds")
    parser.add_argument("--seed", type=int, default=default.seed)
    options = parser.parse_args(arguments)
    plan = Plan(
        transfers=options.transfers,
        daemons=options.daemons,
        rate=options.rate * MIB,
        mtbf=options.mtbf * 3600,
        repair=options.repair,
        seed=options.seed,
    )
    print(simulate(plan).describe())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
