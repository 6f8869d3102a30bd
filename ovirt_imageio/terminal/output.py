"""Output for people: one line for a failure, the width of a terminal, and readers that left.

Knows streams; knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Optional

from ovirt_imageio.errors import BackendUnavailable, printable, visible

__all__ = [
    "DEFAULT_SIZE",
    "LogFormatter",
    "complain",
    "drop_stdout",
    "has_colors",
    "open_missing",
    "reason",
    "say",
    "show_any_text",
    "size",
    "take_interrupts",
    "width",
]

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


def open_missing() -> None:
    """Open the standard streams that whatever started us left closed.

    The next file would take their place, and what is meant for a terminal would be written into it. A program that
    reads from standard input, or writes to standard output, gets an error, as with a descriptor that is closed;
    messages go nowhere.
    """
    for number, flags, name in ((0, os.O_WRONLY, "stdin"), (1, os.O_RDONLY, "stdout"), (2, os.O_WRONLY, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The kernel takes the lowest number that is free.
            os.set_inheritable(os.open(os.devnull, flags), True)
            stream = open(number, "r" if number == 0 else "w", closefd=False)  # noqa: SIM115  (for the whole program)
            setattr(sys, name, stream)


def show_any_text() -> None:
    """Let standard output take what the language of the system has no letters for, as escapes: standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def reason(error: OSError) -> str:
    """Return what the system refused to a program; what names no file is its standard output."""
    if error.filename is None:
        return f"Cannot write to standard output: {error.strerror or error}"
    return f"Cannot use {error.filename}: {error.strerror}"


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
    """Write to standard output; a reader that left, like head, wants no more of it.

    Raises errors.BackendUnavailable, for instance when the disk is full.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        drop_stdout()
    except OSError as error:
        drop_stdout()
        raise BackendUnavailable("write to standard output", error.strerror or str(error), error.errno) from None


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


def has_colors(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """May what is written have colors? On a terminal, unless the user wants none: https://no-color.org."""
    return width(stream) is not None and not environ.get("NO_COLOR")


def drop_stdout() -> None:
    """Write to nowhere from now on: the reader of standard output left, and the interpreter flushes once more."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
