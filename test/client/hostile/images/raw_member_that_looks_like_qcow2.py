"""The same in an archive."""

from __future__ import annotations

from fakes import images

EXPECTED = None


def make(folder, secret):
    image = images.rebase(images.qcow2(folder / "a.raw"), str(secret))
    return {"filename": images.archive(folder / "a.ova", disk=image.read_bytes()), "member": "disk", "format": "raw"}
