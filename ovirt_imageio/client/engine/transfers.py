"""The life of an image transfer in the engine: start, wait, extend, and finalize or give up.

Knows the services of the SDK for transfers; knows nothing of images. The URLs hold the id of a ticket, so nothing here
logs them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any, Optional

from ovirt_imageio.client.engine.connection import Engine, EngineError, NoSuchThing

__all__ = ["Transfer", "name_of"]

log = logging.getLogger(__name__)

# Seconds without any activity after which the engine gives up the transfer by itself: this program may have died.
INACTIVITY = 60

# Seconds between two extensions. Requests of the copy count as activity, too; but some parts of it are silent.
EXTEND_INTERVAL = INACTIVITY / 2

# Seconds that the engine and the host may take.
READY_TIMEOUT = 60
END_TIMEOUT = 300
GIVE_UP_TIMEOUT = 60


class Transfer:
    """A transfer that was started; `url` and `proxy_url` are known after wait_ready().

    Threads: one, and the one that kept_alive() starts.
    """

    def __init__(
        self,
        engine: Engine,
        disk_id: str,
        *,
        is_upload: bool,
        host_id: Optional[str] = None,
        backup_id: Optional[str] = None,
    ) -> None:
        types = engine.types
        self._engine = engine
        self._disk_id = disk_id
        self._is_upload = is_upload
        self._is_ready = False
        self.url = ""
        self.proxy_url: Optional[str] = None
        transfers = engine.system.image_transfers_service()
        with engine.asking(f"start the transfer of disk {disk_id}"):
            added = transfers.add(
                types.ImageTransfer(
                    disk=types.Disk(id=disk_id),
                    host=types.Host(id=host_id) if host_id else None,
                    backup=types.Backup(id=backup_id) if backup_id else None,
                    direction=types.ImageTransferDirection.UPLOAD
                    if is_upload
                    else types.ImageTransferDirection.DOWNLOAD,
                    # Whatever the format of the disk: the host converts.
                    format=types.DiskFormat.RAW,
                    inactivity_timeout=INACTIVITY,
                    timeout_policy=types.ImageTransferTimeoutPolicy.CANCEL,
                )
            )
        self._id = str(added.id)
        self._service: Any = transfers.image_transfer_service(self._id)
        log.debug("Started transfer=%s disk=%s", self._id, disk_id)

    def wait_ready(self) -> None:
        """Wait until the host serves the disk."""
        phases = self._engine.types.ImageTransferPhase
        for _ in self._engine.looks(READY_TIMEOUT):
            with self._engine.asking(f"start the transfer of disk {self._disk_id}"):
                transfer = self._service.get()
            if transfer.phase == phases.TRANSFERRING:
                self.url, self.proxy_url = transfer.transfer_url, transfer.proxy_url
                self._is_ready = True
                return
            if transfer.phase != phases.INITIALIZING:
                raise EngineError(
                    f"The transfer of disk {self._disk_id} did not start, it is {name_of(transfer.phase)}; the events"
                    " of the engine tell why"
                )
        raise EngineError(f"The transfer of disk {self._disk_id} did not start within {READY_TIMEOUT} seconds")

    @contextlib.contextmanager
    def kept_alive(self, interval: float = EXTEND_INTERVAL) -> Iterator[None]:
        """Extend the transfer in the engine as long as the block runs."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._extend, args=(is_over, interval), name="extend", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def _extend(self, is_over: threading.Event, interval: float) -> None:
        while not is_over.wait(interval):
            try:
                with self._engine.asking("extend the transfer"):
                    self._service.extend()
            except EngineError as error:
                # The copy itself may keep it alive; if not, it fails, and says so.
                log.warning("%s", error)

    def finalize(self) -> None:
        """Tell the engine that all is copied; wait_end() tells what it made of that."""
        with self._engine.asking(f"finalize the transfer of disk {self._disk_id}"):
            self._service.finalize()

    def wait_end(self) -> None:
        """Wait until the engine has finalized the transfer."""
        phases = self._engine.types.ImageTransferPhase
        for _ in self._engine.looks(END_TIMEOUT):
            phase = self._phase()
            if phase is None:
                # Engines before 4.4.7 forget it at once.
                self._check_disk()
                return
            if phase == phases.FINISHED_SUCCESS:
                return
            if not self._is_finalizing(phase):
                raise EngineError(
                    f"The engine could not finalize the transfer of disk {self._disk_id}, it is {name_of(phase)}; its"
                    " events tell why"
                )
        raise EngineError(
            f"The engine has not finalized the transfer of disk {self._disk_id} within {END_TIMEOUT} seconds; do not"
            " use the copy before it has"
        )

    def _is_finalizing(self, phase: Any) -> bool:
        phases = self._engine.types.ImageTransferPhase
        return phase in (phases.TRANSFERRING, phases.FINALIZING_SUCCESS)

    def _check_disk(self) -> None:
        with self._engine.asking(f"finalize the transfer of disk {self._disk_id}"):
            status = self._engine.system.disks_service().disk_service(self._disk_id).get().status
        if status != self._engine.types.DiskStatus.OK:
            raise EngineError(
                f"The engine could not finalize the transfer of disk {self._disk_id}: the disk is {name_of(status)}"
            )

    def give_up(self) -> None:
        """End a transfer that failed: cancel it, but finalize a download; failures are logged.

        There is nothing to undo in a disk that was only read.
        """
        try:
            with self._engine.asking("cancel the transfer"):
                if self._is_upload or not self._is_ready:
                    self._service.cancel()
                else:
                    self._service.finalize()
            self._wait_over()
        except NoSuchThing:
            log.debug("The engine has ended transfer=%s", self._id)
        except EngineError as error:
            log.warning(
                "%s; the engine cancels the transfer of disk %s by itself, after %s seconds without activity",
                error,
                self._disk_id,
                INACTIVITY,
            )

    def _wait_over(self) -> None:
        for _ in self._engine.looks(GIVE_UP_TIMEOUT):
            phase = self._phase()
            if phase is None or name_of(phase).startswith("finished"):
                return
        raise EngineError(f"The engine has not ended the transfer within {GIVE_UP_TIMEOUT} seconds")

    def _phase(self) -> Any:
        """Return the phase, None when the engine has forgotten the transfer."""
        try:
            with self._engine.asking(f"look at the transfer of disk {self._disk_id}"):
                return self._service.get().phase
        except NoSuchThing:
            return None


def name_of(value: Any) -> str:
    """Return a phase or status as people read it."""
    return str(value.value).replace("_", " ") if value is not None else "unknown"
