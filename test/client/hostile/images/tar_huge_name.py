"""A name of a member that is as large as the memory."""

from __future__ import annotations

import os
import tarfile

from ovirt_imageio import client

EXPECTED = client.NotAnArchive
MESSAGE = "larger than any name"


def make(folder, secret):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**36
    path = folder / "a.ova"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 2**36)
    return {"filename": path, "member": "disk"}
