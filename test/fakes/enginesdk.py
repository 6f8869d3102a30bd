"""The few classes of the engine SDK that we use, over the engine of engine.py, in this process.

The real SDK has to be compiled; this one stands in where it is not installed:

    monkeypatch.setitem(sys.modules, "ovirtsdk4", make_sdk(engine))
"""

from __future__ import annotations

import enum
from types import ModuleType
from typing import Any, Callable

from fakes.engine import Engine, Refusal

__all__ = ["make_sdk"]


class Error(Exception):
    """What the SDK raises."""

    code = None
    fault = None


class AuthError(Error):
    """Wrong password."""


class ConnectionError(Error):
    """No engine."""


class NotFoundError(Error):
    """No such thing."""


class TimeoutError(Error):
    """A slow engine."""


class Struct:
    """Any type of the SDK: what was not set is None."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        return None


def make_enum(name: str, *values: str) -> Any:
    """Return an enumeration as the SDK has them."""
    return enum.Enum(name, {value.upper(): value for value in values})


PHASES = (
    *("initializing", "transferring", "paused_system", "cancelled", "finalizing_success", "finalizing_failure"),
    *("finished_success", "finished_failure"),
)

types: Any = ModuleType("ovirtsdk4.types")
types.Backup = types.Disk = types.Host = types.StorageDomain = types.ImageTransfer = Struct
types.BackupPhase = make_enum("BackupPhase", "failed", "finalizing", "initializing", "ready", "starting", "succeeded")
types.CheckpointState = make_enum("CheckpointState", "created", "invalid")
types.DiskBackupMode = make_enum("DiskBackupMode", "full", "incremental")
types.DiskStorageType = make_enum("DiskStorageType", "cinder", "image", "lun", "managed_block_storage")
types.DiskBackup = make_enum("DiskBackup", "incremental", "none")
types.DiskContentType = make_enum("DiskContentType", "data", "iso")
types.DiskFormat = make_enum("DiskFormat", "cow", "raw")
types.DiskStatus = make_enum("DiskStatus", "illegal", "locked", "ok")
types.ImageTransferDirection = make_enum("ImageTransferDirection", "download", "upload")
types.ImageTransferPhase = make_enum("ImageTransferPhase", *PHASES)
types.ImageTransferTimeoutPolicy = make_enum("ImageTransferTimeoutPolicy", "cancel", "pause")


def make_sdk(engine: Engine) -> ModuleType:
    """Return the module."""

    class Connection:
        """A connection to the engine."""

        def __init__(self, url: str, username: str, password: str, **options: Any) -> None:
            assert not options.get("debug"), "the SDK would log the password"
            self._login = username, password

        def authenticate(self) -> None:
            translated(lambda: engine.log_in(*self._login))

        def system_service(self) -> Any:
            return System(engine)

        def close(self) -> None:
            """The token is of no more use."""

    sdk: Any = ModuleType("ovirtsdk4")
    for kind in (Error, AuthError, ConnectionError, NotFoundError, TimeoutError):
        setattr(sdk, kind.__name__, kind)
    sdk.Connection = Connection
    sdk.types = types
    return sdk


class System:
    """The services, all in one: what a service does has one meaning only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def disks_service(self) -> Any:
        return Struct(add=self._caller("add_disk"), disk_service=self._disk)

    def _disk(self, disk_id: str) -> Any:
        return Struct(get=self._caller("get_disk", disk_id), remove=self._caller("remove_disk", disk_id))

    def storage_domains_service(self) -> Any:
        return Struct(storage_domain_service=lambda number: Struct(get=self._caller("get_domain", number)))

    def data_centers_service(self) -> Any:
        return Struct(list=lambda search, case_sensitive: self._caller("list_centers")(search))

    def hosts_service(self) -> Any:
        return Struct(list=lambda search, case_sensitive: self._caller("list_hosts")(search))

    def vms_service(self) -> Any:
        return Struct(list=lambda search, case_sensitive: self._caller("list_vms")(search), vm_service=self._vm)

    def _vm(self, vm_id: str) -> Any:
        return Struct(
            get=self._caller("get_vm", vm_id),
            disk_attachments_service=lambda: Struct(list=self._caller("list_attachments", vm_id)),
            checkpoints_service=lambda: Struct(
                checkpoint_service=lambda number: Struct(get=self._caller("get_checkpoint", vm_id, number))
            ),
            backups_service=lambda: Struct(
                add=lambda backup, **query: self._add_backup(vm_id, backup, query),
                backup_service=lambda number: self._backup(vm_id, number),
            ),
        )

    def _add_backup(self, vm_id: str, backup: Any, query: dict[str, Any]) -> Any:
        self._engine.queries.append({key: str(value).lower() for key, value in query.items()})
        return self._caller("add_backup", vm_id)(backup)

    def _backup(self, vm_id: str, backup_id: str) -> Any:
        return Struct(
            get=self._caller("get_backup", vm_id, backup_id, kind=types.BackupPhase),
            finalize=self._caller("finalize_backup", vm_id, backup_id),
            disks_service=lambda: Struct(list=self._caller("list_backup_disks", vm_id, backup_id)),
        )

    def image_transfers_service(self) -> Any:
        return Struct(add=self._caller("add_transfer"), image_transfer_service=self._transfer)

    def _transfer(self, transfer_id: str) -> Any:
        actions = {name: self._caller(name, transfer_id) for name in ("cancel", "extend", "finalize")}
        return Struct(get=self._caller("get_transfer", transfer_id), **actions)

    def _caller(self, name: str, *bound: Any, kind: Any = types.ImageTransferPhase) -> Callable[..., Any]:
        """Return what asks the engine; phases of the answer are of this kind."""

        def call(*arguments: Any) -> Any:
            documents = [to_document(argument) for argument in arguments]
            return from_document(translated(lambda: self._engine.ask(name, *bound, *documents)), kind)

        return call


def translated(call: Callable[[], Any]) -> Any:
    """Turn a refusal into what the SDK raises."""
    try:
        return call()
    except Refusal as refusal:
        kind = {401: AuthError, 403: AuthError, 404: NotFoundError}.get(refusal.status, Error)
        error = kind(refusal.detail)
        error.fault = Struct(detail=refusal.detail)
        raise error from None


def to_document(value: Any) -> Any:
    """Return what the SDK would send."""
    if isinstance(value, Struct):
        return {key: to_document(item) for key, item in vars(value).items() if item is not None}
    if isinstance(value, list):
        return [to_document(item) for item in value]
    return value.value if isinstance(value, enum.Enum) else value


ENUMS = {
    "backup": types.DiskBackup,
    "backup_mode": types.DiskBackupMode,
    "direction": types.ImageTransferDirection,
    "format": types.DiskFormat,
    "state": types.CheckpointState,
    "status": types.DiskStatus,
    "storage_type": types.DiskStorageType,
}


def from_document(value: Any, kind: Any) -> Any:
    """Return what the SDK would make of an answer, whose phases are of a kind."""
    if isinstance(value, list):
        return [from_document(item, kind) for item in value]
    if not isinstance(value, dict):
        return value
    enums = {**ENUMS, "phase": kind}
    return Struct(
        **{key: enums[key](item) if key in enums else from_document(item, kind) for key, item in value.items()}
    )
