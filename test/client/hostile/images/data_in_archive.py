"""The data of a member of an archive is in a file of this host."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "not in the archive"


def make(folder, secret):
    image = images.qcow2(folder / "a.qcow2", f"data_file={folder / 'data'}", "data_file_raw=on")
    image = images.replace(image, str(folder / "data"), str(secret))
    return {"filename": images.archive(folder / "a.ova", disk=image.read_bytes()), "member": "disk"}
