"""An image stands on itself."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "on itself"


def make(folder, secret):
    image = images.qcow2(folder / "a.qcow2")
    return {"filename": images.rebase(image, "a.qcow2", "qcow2")}
