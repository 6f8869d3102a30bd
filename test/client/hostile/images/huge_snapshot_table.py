"""Four thousand million snapshots."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "Snapshot table"


def make(folder, secret):
    return {"filename": images.patch(images.qcow2(folder / "a.qcow2"), 60, "I", 0xFFFFFFFF)}
