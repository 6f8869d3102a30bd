"""The backing file is on a server: it would learn our address, and we would send what it has."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "not a file"


def make(folder, secret):
    return {"filename": images.rebase(images.qcow2(folder / "a.qcow2"), "nbd://127.0.0.1:9/disk")}
