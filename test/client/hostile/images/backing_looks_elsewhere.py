"""The name of the backing file leads out of the folder through the file: protocol of qemu, to a server."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "not a file"


def make(folder, secret):
    return {"filename": images.rebase(images.qcow2(folder / "a.qcow2"), "file:nbd://127.0.0.1:9/disk")}
