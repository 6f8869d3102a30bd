"""A virtual machine of the engine, and its disks.

Knows the services of the SDK for virtual machines; knows nothing of backups.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ovirt_imageio.client.backup.manifest import Machine
from ovirt_imageio.client.engine.connection import Engine, EngineError, NoSuchThing
from ovirt_imageio.errors import InvalidValue, printable

__all__ = ["MachineDisk", "choose", "find_machine", "list_disks"]

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class MachineDisk:
    """A disk as the engine describes it: `size` is what a guest sees, `allocated` what it takes on the storage."""

    id: str
    name: str
    size: int
    allocated: int
    format: str
    sparse: bool


def find_machine(engine: Engine, text: str) -> Machine:
    """Return the virtual machine of this name, or id. Raises NoSuchThing, or InvalidValue if it is not the only one."""
    service = engine.system.vms_service()
    if ID.fullmatch(text):
        with engine.asking(f"find virtual machine {text}"):
            vm = service.vm_service(text.lower()).get()
        return Machine(str(vm.id), str(vm.name))
    if '"' in text:
        raise InvalidValue("virtual machine", text, "an id: the engine cannot search for a name with quotes")
    with engine.asking(f"find virtual machine {text!r}"):
        # A name may be a pattern for the engine.
        found = [vm for vm in service.list(search=f'name="{text}"', case_sensitive=True) if vm.name == text]
    if not found:
        raise NoSuchThing(f"The engine knows no virtual machine {text!r}")
    if len(found) > 1:
        ids = ", ".join(str(vm.id) for vm in found)
        raise InvalidValue("virtual machine", text, f"the id of one of those with this name: {ids}")
    return Machine(str(found[0].id), str(found[0].name))


def list_disks(engine: Engine, machine: Machine) -> list[MachineDisk]:
    """Return the disks that can be backed up: images, not LUNs."""
    types = engine.types
    with engine.asking(f"list the disks of virtual machine {machine.name!r}"):
        attached = engine.system.vms_service().vm_service(machine.id).disk_attachments_service().list()
        disks = [engine.system.disks_service().disk_service(item.disk.id).get() for item in attached]
    return [describe(types, disk) for disk in disks if disk.storage_type in (None, types.DiskStorageType.IMAGE)]


def describe(types: Any, disk: Any) -> MachineDisk:
    """Return what matters of a disk."""
    return MachineDisk(
        id=str(disk.id),
        name=str(disk.name or disk.alias or ""),
        size=int(disk.provisioned_size or 0),
        allocated=int(disk.total_size or disk.actual_size or 0),
        format="raw" if disk.format == types.DiskFormat.RAW else "qcow2",
        sparse=bool(disk.sparse),
    )


def choose(disks: Sequence[MachineDisk], wanted: Sequence[str], machine: Machine) -> list[MachineDisk]:
    """Return the disks with these ids or names, all of them for none. Raises InvalidValue."""
    if not disks:
        raise EngineError(f"Virtual machine {machine.name!r} has no disk that can be backed up")
    chosen: list[MachineDisk] = []
    for text in dict.fromkeys(wanted):
        found = [disk for disk in disks if disk.id == text.lower()] or [disk for disk in disks if disk.name == text]
        if len(found) != 1:
            names = ", ".join(f"{disk.id} ({printable(disk.name)})" for disk in found or disks)
            what = "one disk, by its id" if found else f"a disk of {machine.name!r}"
            raise InvalidValue("disk", text, f"{what}: {names}")
        chosen += [disk for disk in found if disk not in chosen]
    return chosen or list(disks)
