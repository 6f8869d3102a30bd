"""The ovirt-img program: the library from the command line.

Ordinary failures end in one line and an exit status; with --log-level debug also in a traceback.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn, Optional

from ovirt_imageio.client.commands import COMMANDS, SIGNAL_STATUS
from ovirt_imageio.client.options import PROGRAM, STREAM, make_parser, parse
from ovirt_imageio.errors import BackendUntrusted, Error, printable
from ovirt_imageio.terminal import output
from ovirt_imageio.terminal.arguments import WrongArguments

__all__ = ["main"]

log = logging.getLogger(PROGRAM)

# What a shell reports of a program that SIGPIPE ended.
PIPE_STATUS = SIGNAL_STATUS + signal.SIGPIPE

LOG_FORMAT = "%(asctime)s %(levelname)-7s (%(threadName)s) [%(name)s] %(message)s"


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, only main() shall catch it."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    # The system takes back everything at once: a search for what is not used any more, at exit, costs 13 ms.
    atexit.register(gc.freeze)
    output.open_missing()
    output.show_any_text()
    try:
        return start(words)
    except WrongArguments as wrong:
        if wants_json(words):
            command = next((word for word in words if word in COMMANDS), None)
            record = argparse.Namespace(command=command, output="json", filename=STREAM if STREAM in words else None)
            record_failure(record, wrong.message, 2)
        raise


def wants_json(words: Sequence[str]) -> bool:
    """Do arguments that cannot be parsed ask for records?"""
    pairs = zip(words, words[1:])
    return any(pair in (("-o", "json"), ("--output", "json")) for pair in pairs) or "--output=json" in words


def start(words: Sequence[str]) -> int:
    """Parse the arguments, and carry out the command; return the exit status."""
    parser = make_parser(words)
    options = parse(parser, words, os.environ, lambda text: output.complain(PROGRAM, text))
    if options.command is None:
        parser.print_help()
        return 2
    former = signal.signal(signal.SIGTERM, terminate)
    try:
        output.take_interrupts()
        return run(options)
    finally:
        signal.signal(signal.SIGTERM, former)


def run(options: argparse.Namespace) -> int:
    """Carry out a command; return the exit status."""
    try:
        start_log(options)
        status = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return fail(options, "Interrupted", 130)
    except Terminated:
        return fail(options, "Terminated", 143)
    except BrokenPipeError:
        # A reader of a list has seen enough; but a disk is not complete.
        output.drop_stdout()
        return PIPE_STATUS if options.command == "download" else 0
    except Error as error:
        log.debug("Failed", exc_info=True)
        return fail(options, f"{error}{hint(error)}", 1)
    except OSError as error:
        log.debug("Failed", exc_info=True)
        fail(options, output.reason(error), 1)
        output.drop_stdout()
        return 1
    return status or 0


def terminate(number: int, frame: Optional[FrameType]) -> NoReturn:
    """Handle SIGTERM."""
    raise Terminated


def fail(options: argparse.Namespace, message: str, status: int) -> int:
    """Tell what went wrong: people in a line, programs in a record too."""
    output.complain(PROGRAM, message)
    if getattr(options, "output", "text") == "json":
        record_failure(options, message, status)
    return status


def record_failure(options: argparse.Namespace, message: str, status: int) -> None:
    """Tell programs what went wrong."""
    # Loaded only now: a command without records does not wait for them.
    from ovirt_imageio.client.commands.telling import tell

    tell(options, "error", message=printable(message), status=status)


def hint(error: Exception) -> str:
    """Return what may be done about an error, "" if the error itself says it."""
    if isinstance(error, BackendUntrusted) and "certificate" in error.reason:
        return (
            "; if this is the right server, name the file with its authority with --cafile FILE, or what it says its"
            " fingerprint is with --fingerprint SHA256"
        )
    return ""


def start_log(options: argparse.Namespace) -> None:
    """Log to a file, or to the terminal."""
    handler: logging.Handler
    if options.log_file:
        handler = logging.FileHandler(options.log_file)
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(output.LogFormatter(LOG_FORMAT, output.width(sys.stderr)))
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
