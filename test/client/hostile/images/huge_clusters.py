"""Clusters larger than any memory."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "cluster size"


def make(folder, secret):
    return {"filename": images.patch(images.qcow2(folder / "a.qcow2"), 20, "I", 40)}
