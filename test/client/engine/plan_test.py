"""What disk a file needs."""

from __future__ import annotations

import pytest

from ovirt_imageio.client.engine.plan import Plan, make_plan
from ovirt_imageio.client.errors import InvalidArgument
from ovirt_imageio.qemu import img

SIZE = 1024**2

pytestmark = pytest.mark.storage


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(b"x" * 65536 + bytes(SIZE - 65536))
    return str(path)


@pytest.mark.parametrize(
    ("format", "is_preallocated", "is_sparse", "reads_as_zero"),
    [("raw", False, True, True), ("raw", True, False, False), ("qcow2", True, False, True)],
)
def test_raw(raw, format, is_preallocated, is_sparse, reads_as_zero):
    plan = make_plan(raw, format, is_preallocated=is_preallocated)
    assert plan == Plan("raw", format, SIZE, None, is_sparse, False)
    assert plan.reads_as_zero == reads_as_zero


def test_disk_that_grows(raw, tmp_path):
    path = str(tmp_path / "image.qcow2")
    img.convert(raw, "raw", path, "qcow2")
    plan = make_plan(path, "qcow2", is_preallocated=False)
    assert plan == Plan("qcow2", "qcow2", SIZE, img.measure(path, "qcow2")["required"], True, False)
    assert make_plan(path, "raw", is_preallocated=False).initial_size is None


def test_iso(tmp_path):
    path = tmp_path / "image.iso"
    path.write_bytes(bytes(0x8000) + b"\1CD001\1\0" + bytes(SIZE))
    plan = make_plan(str(path), "qcow2", is_preallocated=False)
    assert (plan.format, plan.is_iso, plan.is_sparse, plan.initial_size) == ("raw", True, False, None)


def test_other_format(raw, tmp_path):
    path = str(tmp_path / "image.vmdk")
    img.convert(raw, "raw", path, "vmdk")
    with pytest.raises(InvalidArgument, match="format of the image 'vmdk': expected raw or qcow2"):
        make_plan(path, "raw", is_preallocated=False)
