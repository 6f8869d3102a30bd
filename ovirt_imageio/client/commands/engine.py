"""Commands on disks and virtual machines of an engine: upload-disk, download-disk, backup-vm, restore.

Knows the arguments, and what there is to tell; client/engine/ knows the engine.
"""

from __future__ import annotations

import argparse

from ovirt_imageio.client.commands.telling import existing, progress_of, tell, tell_copy
from ovirt_imageio.client.engine import commands, vmbackup
from ovirt_imageio.client.engine import restore as restoring

__all__ = ["backup_vm", "download_disk", "restore", "upload_disk"]


def upload_disk(options: argparse.Namespace) -> None:
    """Upload FILE to a new disk of an engine."""
    with progress_of(options, "inspecting image") as progress:
        disk_id = commands.upload_disk(options, progress)
    tell_copy(options, progress, disk_id=disk_id)


def download_disk(options: argparse.Namespace) -> None:
    """Download a disk of an engine to FILE."""
    with progress_of(options, "creating transfer") as progress:
        commands.download_disk(options, progress)
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
