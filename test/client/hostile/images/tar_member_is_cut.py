"""A member that is longer than its archive."""

from __future__ import annotations

import tarfile

from ovirt_imageio import client

EXPECTED = client.NotAnArchive
MESSAGE = "ends within|unexpected end"


def make(folder, secret):
    info = tarfile.TarInfo("disk")
    info.size = 2**40
    path = folder / "a.ova"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    return {"filename": path, "member": "disk", "format": "raw"}
