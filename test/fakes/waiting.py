"""How tests wait for what another thread, another process or the kernel does: they look, until one deadline for all.

wait_until(lambda: not origin.connections)
assert event.wait(DEADLINE)
"""

from __future__ import annotations

import time
from typing import Callable, TypeVar

__all__ = ["DEADLINE", "wait_until"]

# For what has to happen. It bounds nothing but the failure of a broken test: a machine that is only slow or busy must
# never meet it. Less than the time-out of pytest, so that a test says itself what did not happen.
DEADLINE = 30.0

PAUSE = 0.005

# The most that one look counts for. While a machine is suspended, or busy with others, no thread had the time to do
# what we wait for.
LONGEST_TURN = 1.0

T = TypeVar("T")


def wait_until(look: Callable[[], T], tell: Callable[[], object] = lambda: "it did not happen") -> T:
    """Look until something true is seen, and return that; at the deadline fail with what `tell` returns."""
    left = DEADLINE
    while True:
        started = time.monotonic()
        seen = look()
        if seen:
            return seen
        assert left > 0, tell()
        time.sleep(PAUSE)
        left -= min(time.monotonic() - started, LONGEST_TURN)
