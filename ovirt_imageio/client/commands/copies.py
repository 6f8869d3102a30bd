"""Commands that copy images, or rehearse that: upload, download, backup.

Knows the library and the arguments; knows nothing of signals, and of the statuses that failures end with.
"""

from __future__ import annotations

import argparse
import io
import sys
from typing import Any, Optional, Union, cast

from ovirt_imageio.client import stdio, transfer
from ovirt_imageio.client.backup.single import Backup
from ovirt_imageio.client.commands.telling import existing, progress_of, tell, tell_copy
from ovirt_imageio.client.errors import translated
from ovirt_imageio.client.options import STREAM
from ovirt_imageio.client.progress import ProgressCounter
from ovirt_imageio.origin.url import without_secrets

__all__ = ["backup", "download", "upload"]

# The last phase of what was not done.
REHEARSED = "nothing done"

# A copy that can be carried out, or rehearsed.
Copy = Union[transfer.Upload, transfer.Download, Backup]


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


def refuse(options: argparse.Namespace, what: str, *names: str) -> None:
    """End with status 2 if one of these options was given, or a format but raw."""
    given = [name for name in names if getattr(options, name)]
    if given:
        options.parser.error(f"--{given[0].replace('_', '-')} does not work with {what}")
    if options.format not in (None, "raw"):
        options.parser.error(f"{what} is raw, not {options.format}")


def transfer_options(options: argparse.Namespace, progress: ProgressCounter) -> transfer.TransferOptions:
    """Return what copies have in common."""
    names = ("fingerprint", "proxy_url", "max_workers", "verify", "bandwidth", "retries")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    return transfer.TransferOptions(
        secure=not options.insecure, progress=progress, resume=getattr(options, "resume", False), **given
    )
