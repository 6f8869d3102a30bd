"""What the daemons needed at most, in all lines that were measured with the shared ones: comes last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.arena import arena
from bench.extents_lines import peak_memory
from bench.lines import Line, Side, Times
from real.release import Missing

__all__ = ["LINES"]


def side(kind: str) -> Side:
    """Return one daemon."""

    @contextlib.contextmanager
    def setup() -> Iterator[None]:
        if kind not in arena.started():
            raise Missing("no line before this one used it")
        yield

    return Side(kind, lambda: peak_memory(arena.daemon(kind).process.pid), setup)


LINES = [
    Line(
        *("daemon-peak", "MiB", [side("ours"), side("release")]),
        about="peak memory of each daemon in all lines that it served",
        less_is_better=True,
        targets=(Times(1),),
        rounds=1,
    )
]
