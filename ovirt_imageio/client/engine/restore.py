"""Restore disks from a folder with backups: to new disks of an engine, or to a transfer URL.

What is uploaded is the disk as it was at a point; the images that it stands on are read along. Knows the order of
things; each thing is in a module of its own.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

from ovirt_imageio.client import api
from ovirt_imageio.client.backup.folder import Folder, backing_name
from ovirt_imageio.client.backup.manifest import DiskCopy, Manifest, Point
from ovirt_imageio.client.engine import commands, settings
from ovirt_imageio.client.engine.connection import Engine, load_sdk
from ovirt_imageio.client.engine.plan import make_plan
from ovirt_imageio.client.engine.vmbackup import describe
from ovirt_imageio.client.progress import PartProgress, ProgressCounter
from ovirt_imageio.errors import InvalidValue, UnsafeImage, printable, quoted
from ovirt_imageio.origin.url import without_secrets
from ovirt_imageio.qemu import img

__all__ = ["list_points", "restore"]

log = logging.getLogger(__name__)

Record = dict[str, Any]


def list_points(path: str) -> list[Record]:
    """Return what there is to tell of each point in a folder, the oldest first."""
    return [
        {
            "name": point.name,
            "mode": point.mode,
            "checkpoint": point.checkpoint,
            "quiesced": point.quiesced,
            "disks": [describe(disk) for disk in point.disks],
        }
        for point in read(Folder(path)).points
    ]


def read(folder: Folder) -> Manifest:
    """Return what a folder holds. Raises InvalidValue if it holds no backup."""
    manifest = folder.read()
    if manifest is None:
        raise InvalidValue("folder", str(folder.path), "one that backup-vm made")
    return manifest


def restore(options: argparse.Namespace, progress: ProgressCounter) -> Record:
    """Restore disks; return what there is to tell of it."""
    folder = Folder(options.folder)
    manifest = read(folder)
    point = manifest.point(options.point)
    disks = point.choose(options.disk)
    if options.url and len(disks) != 1:
        names = ", ".join(f"{disk.id} ({printable(disk.name)})" for disk in disks)
        raise InvalidValue("disk", None, f"one of those at this point, as there is one URL: {names}")
    if not options.url and not options.dry_run:
        load_sdk()
    progress.size = sum(disk.size for disk in disks)
    progress.phase = "checking backup"
    for disk in disks:
        folder.check(manifest, point, disk)
        check_backing(folder, manifest, point, disk)
    record = {
        "vm": manifest.machine.name,
        "vm_id": manifest.machine.id,
        "folder": options.folder,
        "point": point.name,
        "disks": [{**describe(disk), "new_id": None} for disk in disks],
    }
    if options.dry_run:
        progress.phase = "nothing done"
        return {**record, "replaces": without_secrets(options.url) if options.url else None}
    if options.url:
        upload(folder, point, disks[0], options, progress)
    else:
        made = make_disks(folder, point, disks, options, progress)
        record["disks"] = [{**describe(disk), "new_id": new_id} for disk, new_id in zip(disks, made)]
    progress.phase = "restore completed"
    return record


def check_backing(folder: Folder, manifest: Manifest, point: Point, disk: DiskCopy) -> None:
    """Raise UnsafeImage if an image stands on anything but the one below it: on any other file of this host."""
    for place, copy in manifest.chain(point, disk):
        path = str(folder.image(place, copy))
        found = img.info(path, "qcow2").get("backing-filename")
        if found != backing_name(copy.base, copy.id):
            raise UnsafeImage(path, f"it stands on {quoted(found)}, which is not what the manifest tells")


def upload(
    folder: Folder, point: Point, disk: DiskCopy, options: argparse.Namespace, progress: ProgressCounter
) -> None:
    """Upload a disk to a transfer URL."""
    progress.phase = "uploading disk"
    api.upload(
        folder.image(point, disk),
        options.url,
        options.cafile,
        secure=not options.insecure,
        fingerprint=options.fingerprint,
        proxy_url=options.proxy_url,
        progress=progress,
        max_workers=options.max_workers,
        bandwidth=options.bandwidth,
        retries=options.retries,
        format="qcow2",
        verify=options.verify,
    )


def make_disks(
    folder: Folder,
    point: Point,
    disks: tuple[DiskCopy, ...],
    options: argparse.Namespace,
    progress: ProgressCounter,
) -> list[str]:
    """Restore to new disks; return their ids. Disks that are complete stay when a later one fails."""
    made: list[str] = []
    with Engine(settings.login(options)) as engine:
        for disk in disks:
            path = str(folder.image(point, disk))
            is_preallocated = options.preallocated or not disk.sparse
            plan = make_plan(path, options.format or disk.format, is_preallocated=is_preallocated)
            part = PartProgress(progress, disk.size)
            try:
                made.append(commands.upload_image(engine, plan, path, options, part, name=disk.name))
            except BaseException:
                for done, number in zip(disks, made):
                    log.warning("Disk %s is restored, as disk %s", done.id, number)
                raise
    return made
