"""The life of a backup in the engine: start, wait, ask what it has of each disk, and finalize.

Knows the services of the SDK for backups and checkpoints; knows nothing of images and of folders.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Optional

from ovirt_imageio.client.backup.manifest import Machine
from ovirt_imageio.client.engine.connection import Engine, EngineError, NoSuchThing, held_interrupts
from ovirt_imageio.client.engine.transfers import name_of

__all__ = ["Backup", "end_backup", "has_checkpoint"]

log = logging.getLogger(__name__)

# Seconds that the engine and the host may take: the guest may have to write a lot before it is frozen, and a machine
# that is down has to be prepared.
READY_TIMEOUT = 300
END_TIMEOUT = 300


def has_checkpoint(engine: Engine, machine: Machine, checkpoint: str) -> bool:
    """Does the engine still know what changed since this checkpoint?"""
    service = engine.system.vms_service().vm_service(machine.id).checkpoints_service()
    try:
        with engine.asking(f"look for checkpoint {checkpoint}"):
            state = service.checkpoint_service(checkpoint).get().state
    except NoSuchThing:
        return False
    # Engines before 4.4.7 tell no state.
    return state in (None, engine.types.CheckpointState.CREATED)


def end_backup(engine: Engine, machine: Machine, backup_id: str) -> None:
    """End a backup that another program began; a failure is logged."""
    service = engine.system.vms_service().vm_service(machine.id).backups_service().backup_service(backup_id)
    try:
        with engine.asking("end a backup that was interrupted"):
            service.finalize()
        log.warning("Ended backup %s, which was interrupted", backup_id)
    except EngineError as error:
        # Most often the engine has forgotten it.
        log.debug("%s", error)


class Backup:
    """A backup that was started. What it shows stays as it is while the guest goes on, until it is finalized.

    `checkpoint` is known after wait_ready(): None if the engine notes no changes from here on.

    Threads: the main thread.
    """

    def __init__(
        self, engine: Engine, machine: Machine, disk_ids: Sequence[str], *, since: Optional[str], quiesced: bool
    ) -> None:
        types = engine.types
        self._engine = engine
        self._name = machine.name
        self.checkpoint: Optional[str] = None
        backups = engine.system.vms_service().vm_service(machine.id).backups_service()
        wanted = types.Backup(disks=[types.Disk(id=number) for number in disk_ids], from_checkpoint_id=since)
        # Older engines do not know the parameter.
        arguments = {"require_consistency": True} if quiesced else {}
        with engine.asking(f"start a backup of {machine.name!r}"):
            self.id = str(backups.add(wanted, **arguments).id)
        self._service: Any = backups.backup_service(self.id)
        log.debug("Started backup=%s", self.id)

    def wait_ready(self) -> None:
        """Wait until the disks can be read."""
        phases = self._engine.types.BackupPhase
        for _ in self._engine.looks(READY_TIMEOUT):
            with self._engine.asking(f"start the backup of {self._name!r}"):
                backup = self._service.get()
            if backup.phase == phases.READY:
                self.checkpoint = str(backup.to_checkpoint_id) if backup.to_checkpoint_id else None
                return
            if backup.phase not in (None, phases.INITIALIZING, phases.STARTING):
                raise EngineError(
                    f"The backup of {self._name!r} did not start, it is {name_of(backup.phase)}; the events of the"
                    " engine tell why"
                )
        raise EngineError(f"The backup of {self._name!r} did not start within {READY_TIMEOUT} seconds")

    def incremental_disks(self) -> Optional[set[str]]:
        """Return the disks of which the engine has the changes alone; None if it does not tell."""
        with self._engine.asking(f"list the disks of the backup of {self._name!r}"):
            disks = self._service.disks_service().list()
        if any(disk.backup_mode is None for disk in disks):
            return None
        mode = self._engine.types.DiskBackupMode.INCREMENTAL
        return {str(disk.id) for disk in disks if disk.backup_mode == mode}

    def finalize(self) -> None:
        """Tell the engine that all is read, and wait until it has ended the backup."""
        action = f"end the backup of {self._name!r}"
        # As long as a backup is not ended, there can be no other one.
        with held_interrupts(), self._engine.asking(action):
            self._service.finalize()
        phases = self._engine.types.BackupPhase
        for _ in self._engine.looks(END_TIMEOUT):
            try:
                with self._engine.asking(action):
                    phase = self._service.get().phase
            except NoSuchThing:
                # Engines before 4.4.8 forget it at once.
                return
            if phase == phases.SUCCEEDED:
                return
            if phase == phases.FAILED:
                raise EngineError(f"The engine could not end the backup of {self._name!r}; its events tell why")
        raise EngineError(f"The engine has not ended the backup of {self._name!r} within {END_TIMEOUT} seconds")

    def give_up(self) -> None:
        """End a backup that failed; if it cannot be ended, the log says so."""
        try:
            self.finalize()
        except EngineError as error:
            log.warning("%s; as long as it runs, there can be no other one: end backup %s", error, self.id)
