"""How far a transfer is: a bar for people, JSON lines for programs, and any callable or object of the caller.

Knows nothing of disks and connections.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import IO, Any, Callable, Optional, Protocol, Union

from ovirt_imageio import errors, units

__all__ = ["Progress", "ProgressBar", "Reporter", "Updatable"]


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
        """Tell that so many more are done."""
        if count:
            self._update(count)


def ignore(count: int) -> None:
    """Nobody wants to know."""


class ProgressBar:
    """Shows progress on a terminal, or as JSON lines.

        with ProgressBar(phase="uploading image") as bar:
            client.upload("disk.qcow2", url, cafile, progress=bar)

    `output` gets lines of `width` columns that overwrite one another, or, with format "json", one object per line.
    When the with block fails, the bar ends with `error_phase`. `step` is accepted and ignored.

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
        self._phase = phase or ""
        self._error_phase = error_phase or ""
        self._size = size
        self._output = output
        self._draw = self._draw_text if format == "text" else self._draw_json
        self._width = width
        self._now = now
        self._lock = threading.Lock()
        self._done = 0
        self._percent = -1
        self._is_closed = False
        self._start = now()
        with self._lock:
            self._draw(is_last=False)

    @property
    def phase(self) -> str:
        """What is going on; setting it redraws."""
        return self._phase

    @phase.setter
    def phase(self, value: Optional[str]) -> None:
        with self._lock:
            if not self._is_closed and value != self._phase:
                self._phase = value or ""
                self._draw(is_last=False)

    @property
    def size(self) -> Optional[int]:
        """How many bytes there will be, None while nobody knows; setting it redraws."""
        return self._size

    @size.setter
    def size(self, value: Optional[int]) -> None:
        with self._lock:
            if not self._is_closed and value != self._size:
                self._size = value
                self._draw(is_last=False)

    def update(self, count: int) -> None:
        """Count bytes that are done; redraws when the percentage grows."""
        with self._lock:
            self._done += 0 if self._is_closed else count
            if self._is_closed or not self._size:
                return
            percent = self._find_percent()
            if percent > self._percent:
                self._percent = percent
                self._draw(is_last=False)

    def close(self) -> None:
        """Draw for the last time; harmless when repeated."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._draw(is_last=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        if kind is not None:
            self.phase = self._error_phase
        self.close()

    def _find_percent(self) -> int:
        return self._done * 100 // self._size if self._size else 0

    def _draw_text(self, *, is_last: bool) -> None:
        assert self._lock.locked()
        seconds = self._now() - self._start
        rate = self._done / seconds if seconds else 0
        percent = f"{self._find_percent():3}%" if self._size else "----"
        phase = f" | {self._phase}" if self._phase else ""
        line = f"[ {percent} ] {units.size(self._done)}, {seconds:.2f} s, {units.size(rate)}/s{phase}"
        self._output.write(line.ljust(self._width) + ("\n" if is_last else "\r"))
        self._output.flush()

    def _draw_json(self, *, is_last: bool) -> None:
        assert self._lock.locked()
        record: dict[str, Any] = {
            "transferred": self._done,
            "elapsed": self._now() - self._start,
            "description": self._phase,
        }
        if self._size is not None:
            record["size"] = self._size
        self._output.write(json.dumps(record) + "\n")
        self._output.flush()
