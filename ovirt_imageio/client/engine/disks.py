"""Disks in the engine: a new one, until it can be written, and one that is there.

Knows the services of the SDK for disks; knows nothing of transfers.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Optional

from ovirt_imageio.client.engine.connection import Engine, EngineError, NoSuchThing
from ovirt_imageio.client.engine.plan import Plan

__all__ = ["add_disk", "find_domain", "remove_disk", "wait_disk"]

log = logging.getLogger(__name__)


def add_disk(
    engine: Engine,
    plan: Plan,
    filename: str,
    domain: str,
    disk_id: Optional[str] = None,
    name: Optional[str] = None,
    description: Optional[str] = None,
) -> str:
    """Add a disk for a file; return its id. It is locked until wait_disk() returns."""
    types = engine.types
    disk = types.Disk(
        id=disk_id,
        name=name or os.path.splitext(os.path.basename(filename))[0],
        description=description,
        content_type=types.DiskContentType.ISO if plan.is_iso else types.DiskContentType.DATA,
        format=types.DiskFormat.COW if plan.format == "qcow2" else types.DiskFormat.RAW,
        initial_size=plan.initial_size,
        provisioned_size=plan.size,
        sparse=plan.is_sparse,
        # Only qcow2 keeps account of what changes.
        backup=types.DiskBackup.INCREMENTAL if plan.format == "qcow2" else None,
        storage_domains=[types.StorageDomain(name=domain)],
    )
    with engine.asking(f"add a disk on storage domain {domain!r}"):
        return str(engine.system.disks_service().add(disk).id)


def wait_disk(engine: Engine, disk_id: str, seconds: float) -> None:
    """Wait until the engine has made the disk."""
    types = engine.types
    for _ in engine.looks(seconds):
        with engine.asking(f"add disk {disk_id}"):
            status = disk_service(engine, disk_id).get().status
        if status == types.DiskStatus.OK:
            return
        if status == types.DiskStatus.ILLEGAL:
            raise EngineError(f"The engine could not make disk {disk_id}; its events tell why")
    raise EngineError(
        f"The engine has not made disk {disk_id} within {seconds:g} seconds; disk_timeout in the configuration file is"
        " how long to wait"
    )


def remove_disk(engine: Engine, disk_id: str) -> None:
    """Remove a disk of an upload that failed, unless the engine has removed it; a failure is logged."""
    try:
        with engine.asking(f"remove disk {disk_id}"):
            disk_service(engine, disk_id).remove()
    except NoSuchThing:
        log.debug("The engine has removed disk %s", disk_id)
    except EngineError as error:
        log.warning("Disk %s is incomplete, and still there: %s", disk_id, error)


def find_domain(engine: Engine, disk_id: str) -> Optional[str]:
    """Return the name of the storage domain of a disk; None if it is on none, like a LUN. Raises NoSuchThing."""
    with engine.asking(f"find disk {disk_id}"):
        disk = disk_service(engine, disk_id).get()
        if not disk.storage_domains:
            return None
        domains = engine.system.storage_domains_service()
        return str(domains.storage_domain_service(disk.storage_domains[0].id).get().name)


def disk_service(engine: Engine, disk_id: str) -> Any:
    """Return the service of a disk."""
    return engine.system.disks_service().disk_service(disk_id)
