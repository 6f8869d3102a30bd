"""The commands of ovirt-img.

    copies      upload, download, backup
    looking     verify, info, measure, checksum, extents
    attaching   nbd
    engine      upload-disk, download-disk, backup-vm, restore
    telling     what programs and people get to read of a command

These modules are loaded when a command of theirs runs: help, completions and mistakes need none of them, and no command
waits for what another one needs.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import NamedTuple, Optional

__all__ = ["COMMANDS", "SIGNAL_STATUS", "Command"]

# The status that a shell reports of a program that a signal ended is this, and the number of the signal.
SIGNAL_STATUS = 128


class Command(NamedTuple):
    """A command: the text of its help, and the module here and the function that carry it out."""

    about: str
    module: str
    function: str

    def run(self, options: argparse.Namespace) -> Optional[int]:
        """Carry it out; return an exit status, None if that is 0."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        status: Optional[int] = getattr(module, self.function)(options)
        return status


COMMANDS: Mapping[str, Command] = {
    "upload": Command("Upload FILE to URL.", "copies", "upload"),
    "download": Command("Download URL to FILE.", "copies", "download"),
    "backup": Command("Back up the disk at URL to FILE.", "copies", "backup"),
    "verify": Command("Compare FILE with the image at URL.", "looking", "compare"),
    "info": Command("Print what is known of FILE.", "looking", "info"),
    "measure": Command("Print how much space FILE needs in another format.", "looking", "measure"),
    "checksum": Command("Print the checksum of FILE or URL.", "looking", "checksum"),
    "extents": Command("List the extents of FILE or URL, as they are found.", "looking", "extents"),
    "nbd": Command(
        "Offer URL to programs here that speak NBD, for the time of COMMAND or until Ctrl-C.", "attaching", "attach"
    ),
    "upload-disk": Command("Upload FILE to a new disk of an engine.", "engine", "upload_disk"),
    "download-disk": Command("Download a disk of an engine to FILE.", "engine", "download_disk"),
    "backup-vm": Command("Back up the disks of a virtual machine to a folder.", "engine", "backup_vm"),
    "restore": Command("Restore disks from a folder that backup-vm made.", "engine", "restore"),
}
