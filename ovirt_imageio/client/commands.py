"""What each command of ovirt-img does: the library, told by arguments, and what there is to tell of it.

Knows the library and the arguments; knows nothing of exit statuses of failures, and of signals.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any, Optional, Union, cast

from ovirt_imageio import client
from ovirt_imageio.backends.http import HttpBackend
from ovirt_imageio.client import local, meter, records, results, stdio, transfer, verify
from ovirt_imageio.client.attach import Attachment
from ovirt_imageio.client.backup.single import Backup
from ovirt_imageio.client.engine import commands as engine_commands
from ovirt_imageio.client.engine import restore as restoring
from ovirt_imageio.client.engine import vmbackup
from ovirt_imageio.client.errors import translated
from ovirt_imageio.client.options import PROGRAM, STREAM, Run
from ovirt_imageio.client.progress import ProgressCounter, Route
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.origin.url import without_secrets
from ovirt_imageio.terminal import output

__all__ = ["COMMANDS", "SIGNAL_STATUS", "tell"]

# What a shell reports of a program that a signal ended, and of one that it cannot run or find.
SIGNAL_STATUS = 128
NOT_RUNNABLE_STATUS = 126
NOT_FOUND_STATUS = 127

# The last phase of what was not done.
REHEARSED = "nothing done"

# What can be done, or rehearsed.
Copy = Union[transfer.Upload, transfer.Download, Backup]

# Where the URI of an attached disk stands in a command.
PLACE = "{}"


# What programs and people get to read


def tell(options: argparse.Namespace, kind: str, **fields: Any) -> None:
    """Tell what came of a command: programs get a record, people the lines that it deserves."""
    fields = {"command": options.command, **fields}
    if getattr(options, "output", "text") == "json":
        # A reader that left misses nothing.
        with contextlib.suppress(OSError):
            stream = record_stream(options)
            stream.write(records.to_line(kind, fields))
            stream.flush()
        return
    for line in results.lines(kind, fields):
        print(line)


def tell_copy(options: argparse.Namespace, progress: ProgressCounter, **fields: Any) -> None:
    """Tell what came of a copy, and which way it went."""
    route = progress.route
    way = dataclasses.asdict(route) if route else dict.fromkeys(field.name for field in dataclasses.fields(Route))
    done = {"transferred": progress.done, "elapsed": round(progress.elapsed, 3)}
    if isinstance(progress, meter.Bar) and route:
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            print(route, file=sys.stderr)
    tell(options, "result", **done, **{**way, **fields})


def record_stream(options: argparse.Namespace) -> IO[str]:
    """Return where records go: to standard output, unless a disk goes there."""
    is_taken = options.command == "download" and options.filename == STREAM
    return sys.stderr if is_taken else sys.stdout


def progress_of(options: argparse.Namespace, phase: str) -> ProgressCounter:
    """Return what shows the progress: records for programs, a bar on a terminal, nothing elsewhere."""
    if options.quiet:
        return ProgressCounter(phase)
    if options.output == "json":
        return meter.Records(phase, record_stream(options))
    return ProgressCounter(phase) if output.width(sys.stderr) is None else meter.Bar(phase, sys.stderr)


def show(options: argparse.Namespace, kind: str, document: Any) -> None:
    """Tell a document: people get it as it is."""
    if options.output == "json":
        tell(options, "result", **{kind: document})
    else:
        print(json.dumps(document, indent=2))


# Copies


def upload(options: argparse.Namespace) -> None:
    """Upload FILE to URL."""
    size = None
    if options.filename == STREAM:
        refuse(options, "a stream", "member", "shallow", "resume", "verify", "dry_run")
    with progress_of(options, "uploading image") as progress:
        copy = transfer_options(options, progress)
        if options.filename == STREAM:
            stream = cast(io.BufferedIOBase, sys.stdin.buffer)
            stdio.upload(stream, options.url, options.cafile, copy, options.disk_is_zero)
        else:
            image = transfer.Upload(
                options.filename,
                options.url,
                options.cafile,
                copy,
                options.member,
                not options.shallow,
                options.disk_is_zero,
                options.format,
                options.detect_zeroes,
            )
            size = run(options, image)
        progress.phase = "upload completed" if size is None else REHEARSED
    tell_end(options, progress, size, without_secrets(options.url))


def download(options: argparse.Namespace) -> None:
    """Download URL to FILE."""
    size = None
    if options.filename == STREAM:
        refuse(options, "a stream", "incremental", "backing_file", "backing_format", "resume", "verify", "dry_run")
        if sys.stdout.isatty():
            options.parser.error("the disk would go to the terminal; pipe it to a program, or name a FILE")
    with progress_of(options, "downloading image") as progress:
        copy = transfer_options(options, progress)
        if options.filename == STREAM:
            stream = cast(io.BufferedIOBase, sys.stdout.buffer)
            stdio.download(options.url, options.cafile, stream, copy)
        else:
            image = transfer.Download(
                options.url,
                options.filename,
                options.cafile,
                copy,
                options.format or "qcow2",
                options.incremental,
                options.backing_file,
                options.backing_format,
                not options.keep,
            )
            size = run(options, image)
        progress.phase = "download completed" if size is None else REHEARSED
    tell_end(options, progress, size, existing(options.filename))


def backup(options: argparse.Namespace) -> None:
    """Back up the disk at URL to FILE."""
    if options.incremental != (options.backing is not None):
        options.parser.error("--incremental and --backing BASE go together")
    with progress_of(options, "downloading disk") as progress:
        copy = transfer_options(options, progress)
        image = Backup(options.url, options.filename, options.cafile, copy, options.backing)
        size = run(options, image)
        progress.phase = "backup completed" if size is None else REHEARSED
    tell_end(options, progress, size, None, **(image.describe() if size is None else {}))


def run(options: argparse.Namespace, copy: Copy) -> Optional[int]:
    """Carry out a copy; or check what can be checked before, and return the size of the disk."""
    with translated():
        if options.dry_run:
            return copy.rehearse()
        copy.run()
        return None


def tell_end(
    options: argparse.Namespace,
    progress: ProgressCounter,
    rehearsed: Optional[int],
    replaced: Optional[str],
    **fields: Any,
) -> None:
    """Tell what came of run()."""
    if rehearsed is None:
        tell_copy(options, progress, **fields)
    else:
        tell(options, "plan", size=rehearsed, replaces=replaced)


def existing(path: str) -> Optional[str]:
    """Return a path if there is something."""
    return path if os.path.lexists(path) else None


# Looking


def info(options: argparse.Namespace) -> None:
    """Print what is known of FILE."""
    show(options, "info", client.info(options.filename, options.member))


def measure(options: argparse.Namespace) -> None:
    """Print how much space FILE needs in another format."""
    show(options, "measure", client.measure(options.filename, options.format, options.member))


def checksum(options: argparse.Namespace) -> None:
    """Print the checksum of FILE or URL."""
    found = client.checksum(
        options.image,
        options.member,
        block_size=options.block_size,
        algorithm=options.algorithm,
        **server_arguments(options),
    )
    if options.output == "json":
        tell(options, "result", **found)
    else:
        print(json.dumps(found, indent=2))


def compare(options: argparse.Namespace) -> None:
    """Compare FILE with the image at URL."""
    remote = Remote(options.url, **server_arguments(options))
    with translated(), contextlib.ExitStack() as stack:
        there = stack.enter_context(contextlib.closing(HttpBackend(remote.connect(), writable=False)))
        image = local.find(options.filename, options.member, options.format)
        algorithm, found = verify.compare(stack.enter_context(local.opened(image)), there)
    tell(options, "result", algorithm=algorithm, checksum=found)


def extents(options: argparse.Namespace) -> None:
    """List the extents of FILE or URL, as they are found."""
    found = client.extents(
        options.image, options.member, options.bitmap, dirty=options.dirty, **server_arguments(options)
    )
    is_json = options.output == "json"
    count = size = 0
    for extent in found:
        if not count and not is_json:
            print(results.EXTENTS_HEAD)
        print(records.to_line("extent", extent._asdict()) if is_json else f"{results.extent_line(extent)}\n", end="")
        count, size = count + 1, extent.start + extent.length
    tell(options, "result", extents=count, size=size)


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


# Disks of an engine


def upload_disk(options: argparse.Namespace) -> None:
    """Upload FILE to a new disk of an engine."""
    with progress_of(options, "inspecting image") as progress:
        disk_id = engine_commands.upload_disk(options, progress)
    tell_copy(options, progress, disk_id=disk_id)


def download_disk(options: argparse.Namespace) -> None:
    """Download a disk of an engine to FILE."""
    with progress_of(options, "creating transfer") as progress:
        engine_commands.download_disk(options, progress)
    if options.dry_run:
        tell(options, "plan", replaces=existing(options.filename))
    else:
        tell_copy(options, progress)


def backup_vm(options: argparse.Namespace) -> None:
    """Back up the disks of a virtual machine to a folder."""
    with progress_of(options, "looking at the virtual machine") as progress:
        found = vmbackup.backup_vm(options, progress)
    if options.estimate:
        tell(options, "plan", **found)
    else:
        tell_copy(options, progress, **found)


def restore(options: argparse.Namespace) -> None:
    """Restore disks from a folder that backup-vm made."""
    if options.list:
        for point in restoring.list_points(options.folder):
            tell(options, "point", **point)
        return
    if not options.url and not options.storage_domain:
        options.parser.error("say where to: --storage-domain NAME, or --url URL")
    with progress_of(options, "looking at the backup") as progress:
        found = restoring.restore(options, progress)
    if options.dry_run:
        tell(options, "plan", **found)
    else:
        tell_copy(options, progress, **found)


COMMANDS: Mapping[str, Run] = {
    "upload": upload,
    "download": download,
    "backup": backup,
    "verify": compare,
    "info": info,
    "measure": measure,
    "checksum": checksum,
    "extents": extents,
    "nbd": attach,
    "upload-disk": upload_disk,
    "download-disk": download_disk,
    "backup-vm": backup_vm,
    "restore": restore,
}


# Arguments


def refuse(options: argparse.Namespace, what: str, *names: str) -> None:
    """End with status 2 if one of these options was given, or a format but raw."""
    given = [name for name in names if getattr(options, name)]
    if given:
        options.parser.error(f"--{given[0].replace('_', '-')} does not work with {what}")
    if options.format not in (None, "raw"):
        options.parser.error(f"{what} is raw, not {options.format}")


def server_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Return how to reach and trust a server."""
    names = ("cafile", "fingerprint", "proxy_url")
    return {"secure": not options.insecure, **{name: getattr(options, name) for name in names}}


def transfer_options(options: argparse.Namespace, progress: ProgressCounter) -> transfer.TransferOptions:
    """Return what copies have in common."""
    names = ("fingerprint", "proxy_url", "max_workers", "verify", "bandwidth", "retries")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    return transfer.TransferOptions(
        secure=not options.insecure, progress=progress, resume=getattr(options, "resume", False), **given
    )
