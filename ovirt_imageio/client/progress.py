"""How far a transfer is: any callable or object of the caller, and a bar that callers may use.

Knows nothing of disks and connections.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from typing import IO, Any, Callable, Optional, Protocol, Union

from ovirt_imageio import errors, units

__all__ = ["PartProgress", "Progress", "ProgressBar", "ProgressCounter", "Reporter", "Route", "Updatable"]


class Updatable(Protocol):
    """What a caller may pass as progress: `size` is set once it is known, then update() counts bytes."""

    size: Optional[int]

    def update(self, count: int) -> None:
        """Count bytes that are done. Threads: any."""


# What every function of the library takes as progress.
Progress = Union[Callable[[int], object], Updatable]


@dataclass(frozen=True)
class Route:
    """Which way the bytes of a transfer went.

    connection    "unix", "tls" or "tcp"
    protocol      "http" or "nbd"
    proxy         was it the server of proxy_url, because the one of the transfer URL could not be reached?
    mode          "full" or "incremental"
    tls           what encrypts at the server: "kernel", "kernel-send", "memory" or "openssl"; None if it does not tell
    """

    connection: str
    protocol: str
    proxy: bool
    mode: str
    tls: Optional[str] = None

    def __str__(self) -> str:
        connection = {"unix": "a Unix socket", "tls": "TLS", "tcp": "TCP, not encrypted"}[self.connection]
        if self.tls is not None and self.tls.startswith("kernel"):
            connection += " by the kernel of the server"
        return f"{self.mode}, by {self.protocol.upper()} over {connection}{', through the proxy' if self.proxy else ''}"


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

    def went(self, route: Route) -> None:
        """Tell which way the bytes go, if that is of interest."""
        if isinstance(self._target, ProgressCounter):
            self._target.route = route

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
        # The last one that a copy told.
        self.route: Optional[Route] = None

    @property
    def done(self) -> int:
        """How many bytes are done."""
        return self._done

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self._now() - self._start

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

    def _record(self) -> dict[str, Any]:
        """Return all that is known."""
        assert self._lock.locked()
        record: dict[str, Any] = {
            "transferred": self._done,
            "elapsed": self._now() - self._start,
            "description": self._phase or "",
        }
        if self._size is not None:
            record["size"] = self._size
        return record


class PartProgress(ProgressCounter):
    """One of several copies: its bytes and phases are those of the whole, its size was part of that of the whole.

    Threads: any.
    """

    def __init__(self, whole: ProgressCounter, expected: int) -> None:
        # The constructor below forgets the route.
        self._whole = whole
        super().__init__(size=expected)

    @property
    def phase(self) -> Optional[str]:
        """What is going on."""
        return self._whole.phase

    @phase.setter
    def phase(self, value: Optional[str]) -> None:
        self._whole.phase = value

    @property
    def size(self) -> Optional[int]:
        """How many bytes this part has; setting it corrects what was expected."""
        return self._size

    @size.setter
    def size(self, value: Optional[int]) -> None:
        self._whole.size = (self._whole.size or 0) - (self._size or 0) + (value or 0)
        self._size = value

    def update(self, count: int) -> None:
        """Count bytes that are done."""
        self._whole.update(count)

    @property
    def route(self) -> Optional[Route]:
        """Which way the bytes went."""
        return self._whole.route

    @route.setter
    def route(self, value: Optional[Route]) -> None:
        self._whole.route = value


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
        text = self._line() + end if self._is_text else json.dumps(self._record()) + "\n"
        self._output.write(text)
        self._output.flush()

    def _line(self) -> str:
        seconds = self._now() - self._start
        rate = self._done / seconds if seconds else 0
        percent = f"{self._percent():3}%" if self._size else "----"
        phase = f" | {self._phase}" if self._phase else ""
        line = f"[ {percent} ] {units.size(self._done)}, {seconds:.2f} s, {units.size(rate)}/s{phase}"
        return line.ljust(self._width)
