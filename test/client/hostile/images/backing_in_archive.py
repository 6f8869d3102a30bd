"""A member of an archive stands on a file of this host."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "not in the archive"


def make(folder, secret):
    image = images.rebase(images.qcow2(folder / "a.qcow2"), str(secret))
    return {"filename": images.archive(folder / "a.ova", disk=image.read_bytes()), "member": "disk"}
