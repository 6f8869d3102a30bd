"""What people read; whole outputs are in the tests of the commands."""

from __future__ import annotations

import pytest

from ovirt_imageio.client.results import extent_line, lines
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent

EXTENTS = [
    (ZeroExtent(0, 65536, False, False), "data"),
    (ZeroExtent(0, 65536, True, False), "zero"),
    (ZeroExtent(0, 65536, True, True), "hole"),
    (DirtyExtent(0, 65536, True, False), "dirty, data"),
    (DirtyExtent(0, 65536, True, True), "dirty, zero"),
    (DirtyExtent(0, 65536, False, True), "clean"),
]


@pytest.mark.parametrize(("extent", "content"), EXTENTS)
def test_extent(extent, content):
    assert extent_line(extent) == f"{'0':>16} {'65536':>16}  {content}"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"size": 2048, "replaces": "a\x1b[2J"}, "2.00 KiB: would overwrite a\ufffd[2J; nothing was done"),
        ({"replaces": None}, "would replace nothing; nothing was done"),
    ],
)
def test_plan(fields, line):
    assert list(lines("plan", {"command": "download", **fields})) == [line]


def test_results():
    assert list(lines("result", {"command": "upload", "transferred": 1})) == []
    disks = [{"id": "1", "name": "a\nb", "bytes": 1024, "new_id": new} for new in ("2", None)]
    assert list(lines("result", {"command": "restore", "disks": disks})) == [
        "Restored 1 (a b) to disk 2",
        "Restored 1 (a b) to the disk at the URL",
    ]
    backup = {"command": "backup-vm", "mode": "full", "point": "20261129T205401Z", "disks": disks}
    assert list(lines("result", backup)) == ["Full backup 20261129T205401Z: 2 disks, 2.00 KiB"]
