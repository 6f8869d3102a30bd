"""Back up the disks of a virtual machine to a folder: what all its disks were at one moment, while the guest goes on.

    lock DIR, read its manifest
    log in, find machine, disks, and the checkpoint to go on from      --estimate ends here: nothing has moved
    start the backup                                                   it freezes what the disks show
      for each disk: start a transfer, download, finalize it
      add the point to DIR                                             from here on it is there
    finalize the backup

Whatever fails in between, the engine is left without transfer and backup, and DIR as it was. Knows the order of things;
each thing is in a module of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from ovirt_imageio.client import api
from ovirt_imageio.client.backup.folder import Folder, backing_name, digest, image_name
from ovirt_imageio.client.backup.manifest import FULL, INCREMENTAL, DiskCopy, Machine, Manifest, Point
from ovirt_imageio.client.engine import commands, machines, settings
from ovirt_imageio.client.engine.backups import Backup, end_backup, has_checkpoint
from ovirt_imageio.client.engine.connection import Engine, EngineError, held_interrupts, load_sdk
from ovirt_imageio.client.engine.machines import MachineDisk
from ovirt_imageio.client.engine.transfers import Transfer
from ovirt_imageio.client.progress import PartProgress, ProgressCounter
from ovirt_imageio.errors import InvalidValue
from ovirt_imageio.qemu import img

__all__ = ["backup_vm", "describe"]

log = logging.getLogger(__name__)

Record = dict[str, Any]

POINT_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Job:
    """What shall be backed up, and the point to go on from; without one the backup is full."""

    machine: Machine
    disks: list[MachineDisk]
    since: Optional[Point]

    def base(self, disk: MachineDisk, changed: Optional[set[str]]) -> Optional[str]:
        """Return the point that an increment of a disk stands on, None if the disk must be copied as a whole.

        `changed` are the disks of which the engine tells what changed; older ones do not tell, but can for qcow2 alone.
        """
        can_tell = disk.format == "qcow2" if changed is None else disk.id in changed
        return self.since.name if self.since and can_tell and self.since.disk(disk.id) else None


def backup_vm(options: argparse.Namespace, progress: ProgressCounter, now: Callable[[], float] = time.time) -> Record:
    """Back up a virtual machine; return what there is to tell of it."""
    load_sdk()
    img.require()
    folder = Folder(options.folder)
    with contextlib.nullcontext() if options.estimate else folder.locked():
        # Before a password is typed.
        manifest = folder.read()
        check_since(manifest, options)
        with Engine(settings.login(options)) as engine:
            job = find_job(engine, manifest, options)
            if options.estimate:
                return estimate(job, folder, manifest)
            clean(engine, folder, manifest, job.machine)
            name = (manifest or Manifest(job.machine)).name_for(time.strftime(POINT_TIME, time.gmtime(now())))
            point = run(engine, job, folder, manifest or Manifest(job.machine), name, options, progress)
    progress.phase = "backup completed"
    return {
        "vm": job.machine.name,
        "vm_id": job.machine.id,
        "folder": options.folder,
        "point": point.name,
        "mode": point.mode,
        "checkpoint": point.checkpoint,
        "disks": [describe(disk) for disk in point.disks],
    }


def check_since(manifest: Optional[Manifest], options: argparse.Namespace) -> None:
    """Raise InvalidValue if a backup shall be incremental that has nothing to go on from."""
    if options.incremental and find_since(manifest) is None and not options.full_if_lost:
        expected = "a backup with a checkpoint in it: begin with a full one, or use --full-if-lost"
        raise InvalidValue("folder", options.folder, expected)


def find_since(manifest: Optional[Manifest]) -> Optional[Point]:
    """Return the last point that has a checkpoint."""
    points = [point for point in manifest.points if point.checkpoint] if manifest else []
    return points[-1] if points else None


def find_job(engine: Engine, manifest: Optional[Manifest], options: argparse.Namespace) -> Job:
    """Return what shall be backed up. Raises what speaks against it."""
    machine = machines.find_machine(engine, options.vm)
    if manifest and manifest.machine.id != machine.id:
        raise InvalidValue(
            "folder", options.folder, f"one for {machine.name}: it has backups of {manifest.machine.name}"
        )
    disks = machines.choose(machines.list_disks(engine, machine), options.disk, machine)
    since = find_since(manifest) if options.incremental else None
    if since and since.checkpoint and not has_checkpoint(engine, machine, since.checkpoint):
        lost = f"The engine has lost the checkpoint of {since.name}, so it cannot tell what changed since then"
        if not options.full_if_lost:
            raise EngineError(f"{lost}; with --full-if-lost the backup becomes a full one")
        log.warning("%s: the backup becomes a full one", lost)
        since = None
    return Job(machine, disks, since)


def clean(engine: Engine, folder: Folder, manifest: Optional[Manifest], machine: Machine) -> None:
    """Remove what backups left that were killed, here and in the engine."""
    for leftover in folder.leftovers(manifest):
        log.warning("Deleting %s: the backup has not finished", leftover)
        backup_id = folder.backup_of(leftover)
        if backup_id:
            end_backup(engine, machine, backup_id)
        folder.remove(leftover)


def estimate(job: Job, folder: Folder, manifest: Optional[Manifest]) -> Record:
    """Return what a backup would copy at most. What the engine notes of changes is not known before it starts one."""
    most = [min(disk.allocated, disk.size) or disk.size for disk in job.disks]
    modes = [INCREMENTAL if job.base(disk, None) else FULL for disk in job.disks]
    disks = [
        {
            "id": disk.id,
            "name": disk.name,
            "size": disk.size,
            "mode": mode,
            "bytes_at_most": count,
            "last_bytes": last_bytes(manifest, disk.id),
        }
        for disk, mode, count in zip(job.disks, modes, most)
    ]
    place = next(path for path in (folder.path.absolute(), *folder.path.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    return {
        "vm": job.machine.name,
        "vm_id": job.machine.id,
        "folder": str(folder.path),
        "mode": INCREMENTAL if INCREMENTAL in modes else FULL,
        "disks": disks,
        "bytes_at_most": sum(most),
        "bytes_free": free,
        "leftovers": [str(path) for path in folder.leftovers(manifest)],
    }


def last_bytes(manifest: Optional[Manifest], disk_id: str) -> Optional[int]:
    """Return how large the last increment of a disk was, None if there is none."""
    copies = [point.disk(disk_id) for point in manifest.points] if manifest else []
    increments = [copy.bytes for copy in copies if copy and copy.base]
    return increments[-1] if increments else None


def run(
    engine: Engine,
    job: Job,
    folder: Folder,
    manifest: Manifest,
    name: str,
    options: argparse.Namespace,
    progress: ProgressCounter,
) -> Point:
    """Start a backup in the engine, copy its disks, and end it; return the new point."""
    progress.phase = "starting backup"
    progress.size = sum(disk.size for disk in job.disks)
    since = job.since.checkpoint if job.since else None
    with contextlib.ExitStack() as undo:
        with held_interrupts():
            ids = [disk.id for disk in job.disks]
            backup = Backup(engine, job.machine, ids, since=since, quiesced=options.quiesce)
            undo.callback(backup.give_up)
        place = undo.enter_context(folder.partial(name, backup.id))
        backup.wait_ready()
        changed = backup.incremental_disks() if since else set()
        copier = Copier(engine, backup.id, place, options, progress)
        copies = []
        for number, disk in enumerate(job.disks, 1):
            copies.append(copier.copy(disk, job.base(disk, changed), f"disk {number} of {len(job.disks)}"))
        point = Point(name, backup.checkpoint, options.quiesce, tuple(copies))
        progress.phase = "ending backup"
        with held_interrupts():
            folder.add(manifest, point, place)
            undo.pop_all()
    end(backup, point, folder)
    return point


def end(backup: Backup, point: Point, folder: Folder) -> None:
    """End a backup whose point is there, whatever the engine makes of the rest."""
    if backup.checkpoint is None:
        log.warning("The engine keeps no checkpoint of %s: the next backup can only be a full one", point.name)
    try:
        backup.finalize()
    except EngineError as error:
        raise EngineError(f"{error}. The copy is complete, as {folder.path / point.name}") from error


@dataclass(frozen=True)
class Copier:
    """Copies the disks of a backup, one after the other, to a place."""

    engine: Engine
    backup_id: str
    place: Path
    options: argparse.Namespace
    progress: ProgressCounter

    def copy(self, disk: MachineDisk, base: Optional[str], name: str) -> DiskCopy:
        """Copy what the backup shows of a disk, or what changed of it since the point `base`."""
        path = self.place / image_name(disk.id)
        with contextlib.ExitStack() as undo:
            kind: dict[str, Any] = {"is_upload": False, "backup_id": self.backup_id}
            transfer = commands.start_transfer(self.engine, disk.id, undo, self.progress, **kind)
            self.progress.phase = f"downloading {name}"
            with transfer.kept_alive():
                self._download(transfer, disk, base, path)
            commands.finalize(transfer, undo, self.progress)
        self.progress.phase = f"computing the checksum of {name}"
        size = api.info(path)["virtual-size"]
        return DiskCopy(disk.id, disk.name, size, disk.format, disk.sparse, base, path.stat().st_size, digest(path))

    def _download(self, transfer: Transfer, disk: MachineDisk, base: Optional[str], path: Path) -> None:
        arguments = commands.copy_arguments(self.options, transfer, self.progress)
        api.download(
            transfer.url,
            path,
            incremental=base is not None,
            backing_file=backing_name(base, disk.id),
            backing_format="qcow2",
            overwrite=False,
            verify=self.options.verify,
            **{**arguments, "progress": PartProgress(self.progress, disk.size)},
        )


def describe(disk: DiskCopy) -> Record:
    """Return what there is to tell of a disk at a point."""
    keys = ("id", "name", "size", "mode", "bytes", "sha256")
    return {key: getattr(disk, key) for key in keys}
