"""The ovirt-img program: the library from the command line.

Ordinary failures end in one line and an exit status; with --log-level debug also in a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn, Optional, cast

from ovirt_imageio import client
from ovirt_imageio.client import meter, stdio, transfer
from ovirt_imageio.client.attach import Attachment
from ovirt_imageio.client.engine import commands as engine_commands
from ovirt_imageio.client.options import PROGRAM, STREAM, make_parser, parse, take_environment
from ovirt_imageio.client.progress import ProgressCounter
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.terminal import output

__all__ = ["main"]

log = logging.getLogger(PROGRAM)

# What a shell reports of a program that a signal ended, SIGPIPE for one, and of one that it cannot run or find.
SIGNAL_STATUS = 128
PIPE_STATUS = SIGNAL_STATUS + signal.SIGPIPE
NOT_RUNNABLE_STATUS = 126
NOT_FOUND_STATUS = 127

# Where the URI of an attached disk stands in a command.
PLACE = "{}"

LOG_FORMAT = "%(asctime)s %(levelname)-7s (%(threadName)s) [%(name)s] %(message)s"


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, only main() shall catch it."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the program; return the exit status."""
    commands = {
        "upload": upload,
        "download": download,
        "info": info,
        "measure": measure,
        "checksum": checksum,
        "map": show_map,
        "nbd": attach,
        "upload-disk": upload_disk,
        "download-disk": download_disk,
    }
    output.open_missing()
    parser = make_parser(commands)
    options = parse(parser, sys.argv[1:] if arguments is None else arguments)
    if options.command is None:
        parser.print_help()
        return 2
    take_environment(options, os.environ)
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
        return fail("Interrupted", 130)
    except Terminated:
        return fail("Terminated", 143)
    except BrokenPipeError:
        # A reader of a list has seen enough; but a disk is not complete.
        output.drop_stdout()
        return PIPE_STATUS if options.run is download else 0
    except client.Error as error:
        log.debug("Failed", exc_info=True)
        return fail(f"{error}{hint(error)}", 1)
    except OSError as error:
        log.debug("Failed", exc_info=True)
        output.drop_stdout()
        return fail(output.reason(error), 1)
    return status or 0


def terminate(number: int, frame: Optional[FrameType]) -> NoReturn:
    """Handle SIGTERM."""
    raise Terminated


def fail(message: str, status: int) -> int:
    """Tell what went wrong."""
    output.complain(PROGRAM, message)
    return status


def hint(error: Exception) -> str:
    """Return what may be done about an error, "" if the error itself says it."""
    if isinstance(error, client.BackendUntrusted) and "certificate" in error.reason:
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


# Commands


def upload(options: argparse.Namespace) -> None:
    """Upload FILE to URL."""
    if options.filename == STREAM:
        refuse(options, "a stream", "member", "shallow", "resume", "verify")
    with progress_of(options, "uploading image") as progress:
        if options.filename == STREAM:
            stream = cast(io.BufferedIOBase, sys.stdin.buffer)
            stdio.upload(stream, options.url, options.cafile, stream_options(options, progress), options.disk_is_zero)
        else:
            client.upload(
                options.filename,
                options.url,
                progress=progress,
                member=options.member,
                backing_chain=not options.shallow,
                disk_is_zero=options.disk_is_zero,
                format=options.format,
                detect_zeroes=options.detect_zeroes,
                **transfer_arguments(options),
            )
        progress.phase = "upload completed"


def download(options: argparse.Namespace) -> None:
    """Download URL to FILE."""
    if options.filename == STREAM:
        refuse(options, "a stream", "incremental", "backing_file", "backing_format", "resume", "verify")
        if sys.stdout.isatty():
            options.parser.error("the disk would go to the terminal; pipe it to a program, or name a FILE")
    with progress_of(options, "downloading image") as progress:
        if options.filename == STREAM:
            stream = cast(io.BufferedIOBase, sys.stdout.buffer)
            stdio.download(options.url, options.cafile, stream, stream_options(options, progress))
        else:
            client.download(
                options.url,
                options.filename,
                progress=progress,
                fmt=options.format or "qcow2",
                incremental=options.incremental,
                backing_file=options.backing_file,
                backing_format=options.backing_format,
                overwrite=not options.keep,
                **transfer_arguments(options),
            )
        progress.phase = "download completed"


def info(options: argparse.Namespace) -> None:
    """Print what is known of FILE."""
    show(client.info(options.filename, options.member))


def measure(options: argparse.Namespace) -> None:
    """Print how much space FILE needs in another format."""
    show(client.measure(options.filename, options.format, options.member))


def checksum(options: argparse.Namespace) -> None:
    """Print the checksum of FILE or URL."""
    show(
        client.checksum(
            options.image,
            options.member,
            block_size=options.block_size,
            algorithm=options.algorithm,
            **server_arguments(options),
        )
    )


def show_map(options: argparse.Namespace) -> None:
    """Print the extents of FILE or URL, as they are found."""
    found = client.extents(
        options.image, options.member, options.bitmap, dirty=options.dirty, **server_arguments(options)
    )
    separator = "["
    for extent in found:
        print(f"{separator}{json.dumps(extent._asdict())}", end="")
        separator = ",\n "
    print("]" if separator != "[" else "[]")


def attach(options: argparse.Namespace) -> int:
    """Offer URL to programs here that speak NBD, for the time of COMMAND or until Ctrl-C."""
    command = options.program
    if command and not any(PLACE in word for word in command):
        options.parser.error(f"COMMAND needs {PLACE} where the NBD URI of the disk shall stand")
    remote = Remote(options.url, retries=options.retries, **server_arguments(options))
    address = options.listen or (os.path.abspath(options.socket) if options.socket else None)
    with contextlib.closing(remote), Attachment(remote, address, read_only=options.read_only) as attached:
        if command:
            return run_command([word.replace(PLACE, attached.uri) for word in command])
        # Ctrl-C is how this ends.
        with contextlib.suppress(KeyboardInterrupt):
            print(attached.uri, flush=True)
            threading.Event().wait()
        return 0


def upload_disk(options: argparse.Namespace) -> None:
    """Upload FILE to a new disk of an engine."""
    with progress_of(options, "inspecting image") as progress:
        engine_commands.upload_disk(options, progress)


def download_disk(options: argparse.Namespace) -> None:
    """Download a disk of an engine to FILE."""
    with progress_of(options, "creating transfer") as progress:
        engine_commands.download_disk(options, progress)


def run_command(command: list[str]) -> int:
    """Run a command; return what a shell would return for it."""
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        fail(f"Cannot run {command[0]}: {error.strerror}", 0)
        return NOT_FOUND_STATUS if isinstance(error, FileNotFoundError) else NOT_RUNNABLE_STATUS
    return SIGNAL_STATUS - status if status < 0 else status


def refuse(options: argparse.Namespace, what: str, *names: str) -> None:
    """End with status 2 if one of these options was given, or a format but raw."""
    given = [name for name in names if getattr(options, name)]
    if given:
        options.parser.error(f"--{given[0].replace('_', '-')} does not work with {what}")
    if options.format not in (None, "raw"):
        options.parser.error(f"{what} is raw, not {options.format}")


def progress_of(options: argparse.Namespace, phase: str) -> ProgressCounter:
    """Return what shows the progress: on standard error, but for programs on standard output, if that is free."""
    if options.quiet:
        return ProgressCounter(phase)
    if options.output == "json":
        is_taken = options.run is download and options.filename == STREAM
        return meter.Records(phase, sys.stderr if is_taken else sys.stdout)
    is_terminal = output.width(sys.stderr) is not None
    return meter.Bar(phase, sys.stderr) if is_terminal else meter.Lines(phase, sys.stderr)


def show(document: Any) -> None:
    """Print a document."""
    print(json.dumps(document, indent=2))


def server_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return how to reach and trust a server."""
    names = ("cafile", "fingerprint", "proxy_url")
    return {"secure": not options.insecure, **{name: getattr(options, name) for name in names}}


def transfer_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return what upload and download have in common."""
    names = ("max_workers", "resume", "verify", "bandwidth", "retries")
    return {**server_arguments(options), **{name: getattr(options, name) for name in names}}


def stream_options(options: argparse.Namespace, progress: ProgressCounter) -> transfer.TransferOptions:
    """Return the options of a transfer through a pipe."""
    arguments = transfer_arguments(options)
    del arguments["cafile"]
    return transfer.TransferOptions(progress=progress, **arguments)


if __name__ == "__main__":
    sys.exit(main())
