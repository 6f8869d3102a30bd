"""Headers that describe headers, thousands of times."""

from __future__ import annotations

import tarfile

from ovirt_imageio import client

EXPECTED = client.NotAnArchive
MESSAGE = "recursion|Recursion"


def make(folder, secret):
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    path = folder / "a.ova"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) * 20_000)
    return {"filename": path, "member": "disk"}
