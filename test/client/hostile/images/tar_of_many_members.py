"""An archive of twenty thousand members, of which one is wanted."""

from __future__ import annotations

import tarfile

EXPECTED = None


def make(folder, secret):
    path = folder / "a.ova"
    with path.open("wb") as file:
        file.write(tarfile.TarInfo("nothing").tobuf(tarfile.GNU_FORMAT) * 20_000)
        info = tarfile.TarInfo("disk")
        info.size = 512
        file.write(info.tobuf(tarfile.GNU_FORMAT) + b"\xaa" * 512 + bytes(1024))
    return {"filename": path, "member": "disk", "format": "raw"}
