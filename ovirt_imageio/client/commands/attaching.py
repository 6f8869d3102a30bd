"""The command that offers an image to other programs: nbd.

Knows the library and the arguments; knows nothing of signals, and of the statuses that failures end with.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import threading

from ovirt_imageio.client.attach import Attachment
from ovirt_imageio.client.commands import SIGNAL_STATUS
from ovirt_imageio.client.options import PROGRAM, server_arguments
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.terminal import output

__all__ = ["attach"]

# The statuses that a shell reports of programs that it cannot run, or find.
NOT_RUNNABLE_STATUS = 126
NOT_FOUND_STATUS = 127

# Where the URI of an attached disk stands in a command.
PLACE = "{}"


def attach(options: argparse.Namespace) -> int:
    """Offer URL to programs here that speak NBD, for the time of COMMAND or until Ctrl-C."""
    command = options.program
    # A place that the user has chosen is known without that.
    is_known = options.socket or options.listen
    if command and not is_known and not any(PLACE in word for word in command):
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


def run_command(command: list[str]) -> int:
    """Run a command; return what a shell would return for it."""
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        output.complain(PROGRAM, f"Cannot run {command[0]}: {error.strerror}")
        return NOT_FOUND_STATUS if isinstance(error, FileNotFoundError) else NOT_RUNNABLE_STATUS
    return SIGNAL_STATUS - status if status < 0 else status
