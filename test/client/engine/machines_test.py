"""What a virtual machine has that can be backed up; how one is found is in vmbackup_test.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fakes.enginesdk import Struct, types

from ovirt_imageio.client.backup.manifest import Machine
from ovirt_imageio.client.engine.connection import EngineError
from ovirt_imageio.client.engine.machines import MachineDisk, choose, list_disks

WEB = Machine("1", "web")
DISKS = [MachineDisk(str(number), name, 4096, 512, "qcow2", True) for number, name in enumerate(["a", "b", "b", "0"])]


def listing(*disks):
    """Return an engine that knows these disks."""
    found = {disk.id: disk for disk in disks}
    attachments = SimpleNamespace(list=lambda: [Struct(disk=Struct(id=key)) for key in found])
    vms = SimpleNamespace(vm_service=lambda number: Struct(disk_attachments_service=lambda: attachments))
    service = SimpleNamespace(disk_service=lambda key: Struct(get=lambda: found[key]))

    class Engine:
        """Only what is asked."""

        system = SimpleNamespace(vms_service=lambda: vms, disks_service=lambda: service)

        def asking(self, action):
            return pytest.MonkeyPatch.context()

    engine = Engine()
    engine.types = types
    return engine


def test_what_a_disk_is():
    image, old = types.DiskStorageType.IMAGE, None
    disks = list_disks(
        listing(
            Struct(id="1", name="one", provisioned_size=4096, actual_size=512, total_size=1024, sparse=True),
            Struct(id="2", alias="two", provisioned_size=4096, format=types.DiskFormat.RAW, storage_type=image),
            Struct(id="3", storage_type=types.DiskStorageType.LUN),
            Struct(id="4", storage_type=old),
        ),
        WEB,
    )
    assert disks == [
        MachineDisk("1", "one", 4096, 1024, "qcow2", True),
        MachineDisk("2", "two", 4096, 0, "raw", False),
        MachineDisk("4", "", 0, 0, "qcow2", False),
    ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [([], "0123"), (["a"], "0"), (["1", "a"], "10"), (["a", "0", "a"], "0"), (["3"], "3")],
)
def test_choose(wanted, expected):
    assert "".join(disk.id for disk in choose(DISKS, wanted, WEB)) == expected


def test_no_disk():
    with pytest.raises(EngineError, match="has no disk that can be backed up"):
        choose([], [], WEB)
