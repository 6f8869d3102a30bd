"""The data is in another folder, of an image whose format the caller knows."""

from __future__ import annotations

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "another folder"


def make(folder, secret):
    image = images.qcow2(folder / "a.qcow2", f"data_file={folder / 'data'}", "data_file_raw=on")
    return {"filename": images.replace(image, str(folder / "data"), str(secret)), "format": "qcow2"}
