"""A disk that is larger than any number of qemu."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.BackendUnavailable
MESSAGE = "too big"


def make(folder, secret):
    return {"filename": images.patch(images.qcow2(folder / "a.qcow2"), 24, "Q", 2**63)}
