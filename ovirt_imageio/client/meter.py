"""How ovirt-img shows a transfer.

    Bar       on a terminal: one line in its width, which changes
    Records   for programs: JSON, one object a line

What is read too slowly, or not any more, does not end the transfer. Knows streams; knows nothing of disks.
"""

from __future__ import annotations

import time
from collections import deque
from typing import IO, Callable, Optional

from ovirt_imageio import units
from ovirt_imageio.client import records
from ovirt_imageio.client.progress import ProgressCounter
from ovirt_imageio.terminal import output

__all__ = ["Bar", "Meter", "Records", "compose", "short_size"]

# The rate and the time that is left tell of the last seconds, and soon not of the very first ones any more: what is
# zero is done in no time, most of it there.
WINDOW = 10.0

# Narrower than this, a terminal gets no room between words that can do without.
NARROW = 40

# A shorter bar tells no more than the number beside it, a longer one neither.
SHORTEST_BAR = 10
LONGEST_BAR = 40


class Meter(ProgressCounter):
    """Shows on a stream what is done, every `interval` seconds while something moves.

    Threads: any.
    """

    interval = 1.0

    def __init__(self, phase: str, stream: IO[str], now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(phase, "command failed", now=now)
        self._stream = stream
        self._is_read = True
        self._shown = self._start
        self._samples = deque([(self._start, 0)])
        with self._lock:
            self._show_change()

    def _show_count(self) -> None:
        now = self._now()
        if now - self._shown >= self.interval:
            self._shown = now
            self._samples.append((now, self._done))
            while len(self._samples) > 2 and (
                self._samples[0][0] == self._start or now - self._samples[1][0] >= WINDOW
            ):
                self._samples.popleft()
            self._show()

    def _show(self) -> None:
        """Show what is done."""

    def _rate(self) -> float:
        """Return the bytes per second of late; of all the time at the end."""
        since, done = (self._start, 0) if self._is_closed else self._samples[0]
        seconds = self._now() - since
        return (self._done - done) / seconds if seconds > 0 else 0.0

    def _left(self) -> Optional[float]:
        """Return how many seconds it will still take, None if that is not known."""
        rate = self._rate()
        return (self._size - self._done) / rate if self._size is not None and rate > 0 else None

    def _write(self, text: str) -> None:
        try:
            if self._is_read:
                self._stream.write(text)
                self._stream.flush()
        except OSError:
            self._is_read = False


class Bar(Meter):
    """One line on a terminal.

    Threads: any.
    """

    interval = 0.2

    def _show_change(self) -> None:
        self._show()

    def _show_end(self, *, is_failure: bool) -> None:
        # After a failure the line shows how far it came; the reason follows below.
        if not is_failure:
            self._show()
        self._write("\n")

    def _show(self) -> None:
        # In the last column some terminals begin a new line.
        columns = (output.width(self._stream) or output.DEFAULT_SIZE[0]) - 1
        percent = self._percent() if self._size is not None else None
        seconds = self._now() - self._start if self._is_closed else self._left()
        time_label = "in" if self._is_closed else "ETA"
        line = compose(columns, self._phase or "", percent, self._done, self._rate(), time_label, seconds)
        self._write(f"{line.ljust(columns)}\r")


class Records(Meter):
    """JSON objects, one a line: for each change, and every second.

    Threads: any.
    """

    def _show_change(self) -> None:
        self._show()

    def _show(self) -> None:
        self._write(records.to_line("progress", self._record()))

    def _show_end(self, *, is_failure: bool) -> None:
        self._show()


def compose(
    columns: int,
    phase: str,
    percent: Optional[int],
    done: int,
    rate: float,
    time_label: str,
    seconds: Optional[float],
) -> str:
    """Return a line of at most `width` columns: what matters most stays in a narrow one, and a bar fills a wide one."""
    gap = " " if columns < NARROW else "  "
    time_text = "" if seconds is None else units.duration(seconds)
    rate_text = f"{short_size(rate)}/s"
    if columns < NARROW:
        rate_text = rate_text.replace(" ", "")
    elif time_text:
        time_text = f"{time_label} {time_text}"
    percent_text = "" if percent is None else f"{percent}%".rjust(3 if columns < NARROW else 4)
    texts = {"phase": phase, "percent": percent_text, "done": short_size(done), "rate": rate_text, "time": time_text}
    chosen: list[str] = []
    room = columns
    for name in ("percent", "time", "rate", "phase", "done"):
        needed = len(texts[name]) + (len(gap) if chosen else 0)
        if texts[name] and needed <= room:
            chosen.append(name)
            room -= needed
    width = min(room - len(gap), LONGEST_BAR)
    if percent is not None and width >= SHORTEST_BAR:
        full = (width - 2) * min(percent, 100) // 100
        texts["bar"] = f"[{'#' * full}{'-' * (width - 2 - full)}]"
        chosen.append("bar")
    return gap.join(texts[name] for name in ("phase", "bar", "percent", "done", "rate", "time") if name in chosen)


def short_size(count: float) -> str:
    """Return a number of bytes in three or four digits.

    >>> short_size(310.25 * 1024**2), short_size(4.5 * 1024**3)
    ('310 MiB', '4.50 GiB')
    """
    number, _, unit = units.size(count).partition(" ")
    if "." in number:
        number = number[:4].rstrip(".") if len(number) < 7 else number.partition(".")[0]
    return f"{number} {unit}"
