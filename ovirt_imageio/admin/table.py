"""Tickets as people read them: in columns.

Pure: text from what the control service tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ovirt_imageio import units

__all__ = ["bar", "columns", "direction", "progress", "state", "table"]

Info = Mapping[str, Any]

HEADS = ("TRANSFER", "STATE", "OPS", "SIZE", "DONE", "RATE", "CONNS", "EXPIRES", "TICKET")

# Numbers are easier to compare when they end in one column.
NUMBERS = frozenset(["SIZE", "DONE", "RATE", "CONNS", "EXPIRES"])


def table(infos: Sequence[Info]) -> list[str]:
    """Return the lines of a table of tickets."""
    return columns(HEADS, [_row(info) for info in infos])


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines whose cells stand below each other."""
    widths = [max(map(len, cells)) for cells in zip(heads, *rows)]
    lines = []
    for row in (heads, *rows):
        cells = [
            cell.rjust(width) if head in NUMBERS else cell.ljust(width) for head, cell, width in zip(heads, row, widths)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def state(info: Info) -> str:
    """Return what a ticket is doing, in a word."""
    if info["canceled"]:
        return "canceled"
    if info["active"]:
        return "active"
    return "idle" if info["remaining"] else "expired"


def direction(info: Info) -> str:
    """Return where the bytes go."""
    ops = info["ops"]
    if len(ops) > 1:
        return "both"
    return "in" if "write" in ops else "out"


def progress(info: Info) -> float:
    """Return how much is done, from 0 to 1; 0 where that is not known."""
    size = info["size"]
    return min(1.0, info.get("transferred", 0) / size) if size else 0.0


def bar(share: float, width: int) -> str:
    """Return a progress bar.

    >>> bar(0.5, 10)
    '[####----]'
    """
    inner = max(0, width - 2)
    # Full only when it is done.
    full = int(share * inner)
    return f"[{'#' * full}{'-' * (inner - full)}]"


def _row(info: Info) -> list[str]:
    return [
        info["transfer_id"],
        state(info),
        ",".join(info["ops"]),
        units.size(info["size"]),
        units.size(info["transferred"]) if "transferred" in info else "-",
        f"{units.size(info['rate'])}/s",
        str(info["connections"]),
        units.duration(info["remaining"]),
        f"{info['uuid_prefix']}...",
    ]
