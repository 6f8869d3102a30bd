"""A text that looks like a disk of another format names a file of this host as its part."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "another folder"


def make(folder, secret):
    image = folder / "a.raw"
    image.write_text(images.VMDK % secret)
    return {"filename": image}
