"""The same in an archive."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "not in the archive"


def make(folder, secret):
    text = images.VMDK % secret
    return {"filename": images.archive(folder / "a.ova", disk=text.encode()), "member": "disk"}
