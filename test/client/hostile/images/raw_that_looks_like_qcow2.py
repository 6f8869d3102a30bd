"""A guest made its raw disk look like an image that names a file; the caller knows that it is raw."""

from __future__ import annotations

from fakes import images

EXPECTED = None


def make(folder, secret):
    return {"filename": images.rebase(images.qcow2(folder / "a.raw"), str(secret)), "format": "raw"}
