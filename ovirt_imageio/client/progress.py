"""How far a transfer is: any callable or object of the caller, and a bar that callers may use.

Knows nothing of disks and connections.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import IO, Any, Callable, Optional, Protocol, Union

from ovirt_imageio import errors, units

__all__ = ["Progress", "ProgressBar", "ProgressCounter", "Reporter", "Updatable"]


class Updatable(Protocol):
    """What a caller may pass as progress: `size` is set once it is known, then update() counts bytes."""

    size: Optional[int]

    def update(self, count: int) -> None:
        """Count bytes that are done. Threads: any."""


# What every function of the library takes as progress.
Progress = Union[Callable[[int], object], Updatable]


class Reporter:
    """Gives one face to whatever was passed as progress; None is welcome too.

    Threads: any; what was passed is called from any thread too.
    """

    def __init__(self, progress: Optional[Progress]) -> None:
        # Compared with None: an object may well be false while nothing is done.
        update: Any = ignore if progress is None else getattr(progress, "update", progress)
        if not callable(update):
            raise errors.InvalidValue("progress", progress, "a callable, or an object with update(count)")
        self._update: Callable[[int], object] = update
        self._target: Any = None if update is progress else progress

    def begin(self, size: int) -> None:
        """Tell how many bytes there will be."""
        if self._target is not None:
            self._target.size = size

    def update(self, count: int) -> None:
        """Tell that `count` more bytes are done."""
        if count:
            self._update(count)


def ignore(count: int) -> None:
    """Take the progress of a caller that gave none."""


class ProgressCounter:
    """Counts what is done, and knows the phase; shows nothing.

    Threads: any.
    """

    def __init__(
        self,
        phase: Optional[str] = None,
        error_phase: Optional[str] = None,
        size: Optional[int] = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._phase = phase
        self._error_phase = error_phase
        self._size = size
        self._now = now
        # Guards everything; held while something is shown.
        self._lock = threading.Lock()
        self._done = 0
        self._is_closed = False
        self._start = now()

    @property
    def phase(self) -> Optional[str]:
        """What is going on; setting it shows it."""
        return self._phase

    @phase.setter
    def phase(self, value: Optional[str]) -> None:
        with self._lock:
            if not self._is_closed and value != self._phase:
                self._phase = value
                self._show_change()

    @property
    def size(self) -> Optional[int]:
        """How many bytes there will be, None while that is not known; setting it shows it."""
        return self._size

    @size.setter
    def size(self, value: Optional[int]) -> None:
        with self._lock:
            if not self._is_closed and value != self._size:
                self._size = value
                self._show_change()

    def update(self, count: int) -> None:
        """Count bytes that are done; shows them when it is time."""
        with self._lock:
            if not self._is_closed:
                self._done += count
                self._show_count()

    def close(self) -> None:
        """Show what there is for the last time; harmless when repeated."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._show_end(is_failure=False)

    def __enter__(self) -> ProgressCounter:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        if kind is None:
            self.close()
            return
        with self._lock:
            if not self._is_closed:
                self._phase = self._error_phase
                self._is_closed = True
                self._show_end(is_failure=True)

    # What kinds that show something do; the lock is held.

    def _show_change(self) -> None:
        """The phase or the size is another one."""

    def _show_count(self) -> None:
        """More is done."""

    def _show_end(self, *, is_failure: bool) -> None:
        """Nothing will follow."""

    def _percent(self) -> int:
        return self._done * 100 // self._size if self._size else 0

    def _record(self) -> str:
        """Return all that is known as a JSON object."""
        assert self._lock.locked()
        record: dict[str, Any] = {
            "transferred": self._done,
            "elapsed": self._now() - self._start,
            "description": self._phase or "",
        }
        if self._size is not None:
            record["size"] = self._size
        return json.dumps(record)


class ProgressBar(ProgressCounter):
    """Shows progress on a terminal, or as JSON lines.

        with ProgressBar(phase="uploading image") as bar:
            client.upload("disk.qcow2", url, cafile, progress=bar)

    `output` gets lines of `width` columns that overwrite one another, or, with format "json", one object per line: for
    each change, and each percent. When the with block fails, the bar ends with `error_phase`. `step` is accepted and
    ignored.

    Threads: any.
    """

    def __init__(
        self,
        phase: Optional[str] = None,
        error_phase: Optional[str] = "command failed",
        size: Optional[int] = None,
        output: IO[str] = sys.stdout,
        format: str = "text",
        step: Optional[float] = None,
        width: int = 79,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if format not in ("text", "json"):
            raise errors.InvalidValue("format", format, '"text" or "json"')
        super().__init__(phase, error_phase, size, now)
        self._output = output
        self._is_text = format == "text"
        self._width = width
        self._shown_percent = -1
        with self._lock:
            self._show_change()

    def __enter__(self) -> ProgressBar:
        return self

    def _show_change(self) -> None:
        self._draw("\r")

    def _show_count(self) -> None:
        if self._size and self._percent() > self._shown_percent:
            self._shown_percent = self._percent()
            self._draw("\r")

    def _show_end(self, *, is_failure: bool) -> None:
        if is_failure:
            self._draw("\r")
        self._draw("\n")

    def _draw(self, end: str) -> None:
        text = self._line() + end if self._is_text else self._record() + "\n"
        self._output.write(text)
        self._output.flush()

    def _line(self) -> str:
        seconds = self._now() - self._start
        rate = self._done / seconds if seconds else 0
        percent = f"{self._percent():3}%" if self._size else "----"
        phase = f" | {self._phase}" if self._phase else ""
        line = f"[ {percent} ] {units.size(self._done)}, {seconds:.2f} s, {units.size(rate)}/s{phase}"
        return line.ljust(self._width)
