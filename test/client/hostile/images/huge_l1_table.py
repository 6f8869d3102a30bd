"""A table of clusters that would fill the memory."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "table"


def make(folder, secret):
    return {"filename": images.patch(images.qcow2(folder / "a.qcow2"), 36, "I", 0x7FFFFFFF)}
