"""The data of an image is in its folder, by a link to another one."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "another folder"


def make(folder, secret):
    image = images.qcow2(folder / "a.qcow2", f"data_file={folder / 'data'}", "data_file_raw=on")
    (folder / "data").unlink()
    (folder / "data").symlink_to(secret)
    return {"filename": image}
