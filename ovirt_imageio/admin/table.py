"""Tickets as people read them: in columns.

Pure: text from what the control service tells.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ovirt_imageio import units
from ovirt_imageio.errors import printable
from ovirt_imageio.terminal import traffic

__all__ = ["INDENT", "bar", "columns", "direction", "progress", "state", "table", "wrapped"]

Info = Mapping[str, Any]

HEADS = ("TRANSFER", "STATE", "OPS", "SIZE", "DONE", "RATE", "CONNS", "EXPIRES", "TICKET")

# Numbers are easier to compare when they end in one column.
NUMBERS = frozenset(["SIZE", "DONE", "RATE", "CONNS", "EXPIRES"])


# What does not fit into the width goes on below, so far to the right.
INDENT = "    "


def table(infos: Sequence[Info], width: Optional[int] = None) -> list[str]:
    """Return the lines of a table of tickets, none longer than width; nothing is cut off."""
    heads, *rows = columns(HEADS, [_row(info) for info in infos], width)
    lines = list(heads)
    for info, row in zip(infos, rows):
        lines += row
        if info.get("last_error"):
            lines += wrapped(f"last error: {printable(info['last_error'])}", width, INDENT)
    return lines


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], width: Optional[int] = None) -> list[list[str]]:
    """Return the lines of the heads, and those of each row; cells stand below each other.

    Columns that do not fit into the width go on in a second line, or a third.
    """
    widths = [max(map(len, cells)) for cells in zip(heads, *rows)]
    bands = split(widths, width)
    found = []
    for row in (heads, *rows):
        cells = [
            cell.rjust(size) if head in NUMBERS else cell.ljust(size) for head, cell, size in zip(heads, row, widths)
        ]
        lines = ["  ".join(cells[first:last]).rstrip() for first, last in bands]
        found.append(folded([lines[0], *(f"{INDENT}{line}" for line in lines[1:])], width))
    return found


def split(widths: Sequence[int], width: Optional[int]) -> list[tuple[int, int]]:
    """Return which columns are together in a line, as (first, last + 1)."""
    bands = []
    first, used = 0, widths[0]
    for number, size in enumerate(widths[1:], 1):
        if width is not None and used + 2 + size > width:
            bands.append((first, number))
            first, used = number, len(INDENT) + size
        else:
            used += 2 + size
    return [*bands, (first, len(widths))]


def wrapped(text: str, width: Optional[int], indent: str = "") -> list[str]:
    """Return text in lines that are not longer than width, broken between words."""
    if width is None:
        return [indent + text]
    lines = textwrap.wrap(text, max(width, 1), initial_indent=indent, subsequent_indent=indent or INDENT)
    return folded(lines, width)


def folded(lines: Sequence[str], width: Optional[int]) -> list[str]:
    """Return lines of which none is longer than width, broken anywhere."""
    if width is None:
        return list(lines)
    return [line[start : start + width] for line in lines for start in range(0, max(1, len(line)), width)]


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
    return traffic.direction(comes="write" in ops, goes="read" in ops)


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
        printable(info["transfer_id"]),
        state(info),
        ",".join(info["ops"]),
        units.size(info["size"]),
        units.size(info["transferred"]) if "transferred" in info else "-",
        traffic.rate(info["rate"]),
        str(info["connections"]),
        units.duration(info["remaining"]),
        f"{printable(info['uuid_prefix'])}...",
    ]
