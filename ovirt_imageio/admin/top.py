"""A live view of all transfers: the whole screen on a terminal, plain lines elsewhere.

    12:30:05  1 transfers, 1 active, in 310.00 MiB/s, out 0 bytes/s
    TRANSFER  DIR  PROGRESS                         DONE       SIZE          RATE  AGE  CONNS  STATE
    5a3c5b4e  in   [##########----------]  50%  5.00 GiB  10.00 GiB  310.00 MiB/s  17s   4/4k  active
        192.0.2.7  in  HTTP  310.00 MiB/s  5.00 GiB  connections: 4

Knows terminals; where the tickets come from is an argument.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional, TextIO

from ovirt_imageio import units
from ovirt_imageio.admin import table
from ovirt_imageio.errors import printable
from ovirt_imageio.terminal import output, traffic

__all__ = ["render", "top"]

Info = Mapping[str, Any]

# Sequences that every terminal of the last decades knows.
ENTER = "\x1b[?1049h\x1b[?25l"
LEAVE = "\x1b[?25h\x1b[?1049l"
HOME = "\x1b[H"
CLEAR_LINE = "\x1b[K"
CLEAR_BELOW = "\x1b[J"

# Not Escape: the arrow keys begin with it.
QUIT = frozenset("qQ\x03\x04")

# The widest one is for plain lines, too. Where it would take another line, it is shorter.
BAR_WIDTHS = (22, 12, 0)

# The keys of a client, in the order in which client_line() takes their values.
CLIENT = ("address", "protocol", "received", "sent", "rate")

# Active ones first: on a small screen the rest is cut off.
ORDER = ("active", "canceled", "idle", "expired")


def top(
    fetch: Callable[[], Sequence[Info]],
    interval: float,
    rounds: Optional[int] = None,
    *,
    source: Optional[TextIO] = None,
    sink: Optional[TextIO] = None,
) -> None:
    """Show what `fetch` returns every `interval` seconds, until the user quits; at most `rounds` times.

    What fetch raises ends it, after the terminal is as it was.
    """
    source = source or sys.stdin
    sink = sink or sys.stdout
    if source.isatty() and sink.isatty():
        with full_screen(source, sink):
            _show(fetch, interval, rounds, source, sink)
    else:
        _print(fetch, interval, rounds, sink)


def render(infos: Sequence[Info], width: int, height: int, clock: str) -> list[str]:
    """Return the lines of a screen, none longer than width, no more than height.

    Nothing of a transfer is cut off; those for which there is no room are counted. Clients get the room that is left.
    """
    infos = sorted(infos, key=lambda info: ORDER.index(table.state(info)))
    layouts = [table.columns(_heads(bar), [_row(info, bar) for info in infos], width) for bar in BAR_WIDTHS]
    heads, *rows = min(layouts, key=lambda layout: len(layout[0]))
    lines = [*table.wrapped(summary(infos, clock), width), *heads]
    # One line is for the number of the others, unless all fit.
    spare = height - len(lines) - sum(map(len, rows))
    room = height - len(lines) - (spare < 0)
    for number, (info, row) in enumerate(zip(infos, rows)):
        if len(row) > room:
            lines.append(f"... {len(rows) - number} more"[:width])
            break
        clients = _fitting([table.wrapped(line, width, table.INDENT) for line in _clients(info)], spare, width)
        spare -= len(clients)
        lines += [*row, *clients]
        room -= len(row) + len(clients)
    return lines[:height]


def summary(infos: Sequence[Info], clock: str) -> str:
    """Return the line above the table."""
    active = sum(table.state(info) == "active" for info in infos)
    rates = {way: sum(info["rate"] for info in infos if table.direction(info) == way) for way in ("in", "out", "both")}
    text = ", ".join(f"{way} {traffic.rate(rate)}" for way, rate in rates.items() if rate or way != "both")
    return f"{clock}  {len(infos)} transfers, {active} active, {text}"


@contextlib.contextmanager
def full_screen(source: TextIO, sink: TextIO) -> Iterator[None]:
    """Take the whole terminal, and give it back as it was."""
    descriptor = source.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        # Keys come one by one and are not echoed; Ctrl-C still interrupts.
        tty.setcbreak(descriptor)
        sink.write(ENTER)
        yield
    finally:
        sink.write(LEAVE)
        sink.flush()
        # Keys that we did not read are not for the shell either.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _show(
    fetch: Callable[[], Sequence[Info]], interval: float, rounds: Optional[int], source: TextIO, sink: TextIO
) -> None:
    while True:
        columns, height = output.size(sink) or output.DEFAULT_SIZE
        lines = render(fetch(), columns, height - 1, time.strftime("%H:%M:%S"))
        # In one write, over what is there: nothing flickers, also over a slow line.
        text = "".join(f"{line}{CLEAR_LINE}\n" for line in lines)
        sink.write(f"{HOME}{text}{CLEAR_BELOW}")
        sink.flush()
        if rounds is not None:
            rounds -= 1
        if rounds == 0 or _is_quit(source, interval):
            return


def _is_quit(source: TextIO, interval: float) -> bool:
    """Wait for the next round; return True if the user has enough."""
    deadline = time.monotonic() + interval
    while True:
        ready, _, _ = select.select([source], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        keys = os.read(source.fileno(), 64).decode(errors="replace")
        # Nothing at all: the terminal is gone.
        if not keys or QUIT.intersection(keys):
            return True


def _print(fetch: Callable[[], Sequence[Info]], interval: float, rounds: Optional[int], sink: TextIO) -> None:
    while True:
        clock = time.strftime("%H:%M:%S")
        infos = fetch()
        sink.write(f"{summary(infos, clock)}\n")
        for info in infos:
            for line in [" ".join(_row(info)), *(f"  {client}" for client in _clients(info))]:
                sink.write(f"{clock}  {line}\n")
        sink.flush()
        if rounds is not None:
            rounds -= 1
            if rounds == 0:
                return
        time.sleep(interval)


def _heads(bar_width: int) -> list[str]:
    progress = "PROGRESS" if bar_width else "%"
    return ["TRANSFER", "DIR", progress, "DONE", "SIZE", "RATE", "AGE", "CONNS", "STATE"]


def _connections(info: Info) -> str:
    """Return how many there are, and for how many of them the kernel speaks TLS, if for any: 4/3k."""
    in_kernel = info.get("kernel_tls", 0)
    return f"{info['connections']}/{in_kernel}k" if in_kernel else str(info["connections"])


def _clients(info: Info) -> list[str]:
    """Return a line for each client that is there."""
    return [
        f"{traffic.client_line(*(client[key] for key in CLIENT))}  connections: {client['connections']}"
        for client in info["clients"]
    ]


def _fitting(items: Sequence[Sequence[str]], room: int, width: int) -> list[str]:
    """Return the lines of as many items as there is room for; the last line counts the others."""
    lines: list[str] = []
    for number, item in enumerate(items):
        # One line is for the number of the others, unless this is the last one.
        if len(lines) + len(item) + (number + 1 < len(items)) > room:
            return [*lines, f"{table.INDENT}... {len(items) - number} more"[:width]] if len(lines) < room else lines
        lines += item
    return lines


def _row(info: Info, bar_width: int = BAR_WIDTHS[0]) -> list[str]:
    is_known = "transferred" in info
    share = table.progress(info)
    bar = f"{table.bar(share, bar_width)} " if bar_width else ""
    return [
        printable(info["transfer_id"]),
        table.direction(info),
        f"{bar}{int(share * 100):3}%" if is_known else "-",
        units.size(info["transferred"]) if is_known else "-",
        units.size(info["size"]),
        traffic.rate(info["rate"]),
        units.duration(info["age"]),
        _connections(info),
        table.state(info),
    ]
