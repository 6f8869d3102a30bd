"""Two images stand on each other."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "on itself"


def make(folder, secret):
    first, second = images.qcow2(folder / "a.qcow2"), images.qcow2(folder / "b.qcow2")
    images.rebase(second, str(first), "qcow2")
    return {"filename": images.rebase(first, str(second), "qcow2")}
