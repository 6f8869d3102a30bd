"""Output for people: one line for a failure, the width of a terminal, and readers that left.

Knows streams; knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import IO, Optional

from ovirt_imageio.errors import printable, visible

__all__ = ["DEFAULT_SIZE", "LogFormatter", "complain", "drop_stdout", "say", "size", "take_interrupts", "width"]

# Columns and lines of a terminal that does not tell them, such as a serial line.
DEFAULT_SIZE = (80, 24)


class LogFormatter(logging.Formatter):
    """Formats records for a terminal of this width, None for a stream that is not one.

    Nothing that a server said moves the cursor or changes colors; and a line that is shorter than the bar of a progress
    leaves nothing of that behind it.
    """

    def __init__(self, text: str, width: Optional[int] = None) -> None:
        super().__init__(text)
        self._width = (width or 1) - 1

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return "\n".join(visible(line.expandtabs()).ljust(self._width) for line in super().format(record).split("\n"))


def take_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, where it ended the program without a word until now."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def complain(program: str, message: object) -> None:
    """Tell on standard error, in one line, what went wrong."""
    # Standard error may be a pipe whose reader left, or closed.
    with contextlib.suppress(OSError, ValueError):
        print(f"{program}: {printable(str(message))}", file=sys.stderr, flush=True)


def say(text: str, end: str = "\n") -> None:
    """Write to standard output; a reader that left, like head, wants no more of it."""
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        drop_stdout()


def size(stream: IO[str]) -> Optional[tuple[int, int]]:
    """Return the columns and lines of the terminal that a stream writes to, None if that is not a terminal."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return None
    return columns or DEFAULT_SIZE[0], lines or DEFAULT_SIZE[1]


def width(stream: IO[str]) -> Optional[int]:
    """Return the columns of the terminal that a stream writes to, None if that is not a terminal."""
    found = size(stream)
    return found and found[0]


def drop_stdout() -> None:
    """Write to nowhere from now on: the reader of standard output left, and the interpreter flushes once more."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
