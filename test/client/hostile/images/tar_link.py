"""A member that is a link to a file of this host."""

from __future__ import annotations

import tarfile

from ovirt_imageio import client

EXPECTED = client.MemberNotFound
MESSAGE = "plain file"


def make(folder, secret):
    info = tarfile.TarInfo("disk")
    info.type, info.linkname = tarfile.SYMTYPE, str(secret)
    path = folder / "a.ova"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    return {"filename": path, "member": "disk", "format": "raw"}
