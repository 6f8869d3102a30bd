"""A member whose end is before its beginning."""

from __future__ import annotations

import tarfile

from ovirt_imageio import client

EXPECTED = client.NotAnArchive
MESSAGE = "ends within|not a tar archive"


def make(folder, secret):
    info = tarfile.TarInfo("disk")
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    data[124:136] = b"\xff" * 12
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    path = folder / "a.ova"
    path.write_bytes(data + bytes(10_240))
    return {"filename": path, "member": "disk", "format": "raw"}
