"""The backing file is harmless, but stands on a server itself."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "not a file"


def make(folder, secret):
    below = images.rebase(images.qcow2(folder / "b.qcow2"), "https://127.0.0.1:9/disk")
    return {"filename": images.rebase(images.qcow2(folder / "a.qcow2"), str(below), "qcow2")}
