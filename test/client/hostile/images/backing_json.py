"""The backing file is a tree of nodes, which may be anything."""

from __future__ import annotations

import json

from fakes import images

from ovirt_imageio import client

EXPECTED = client.UnsafeImage
MESSAGE = "not a file"


def make(folder, secret):
    name = "json:" + json.dumps({"driver": "raw", "file": {"driver": "file", "filename": str(secret)}})
    return {"filename": images.rebase(images.qcow2(folder / "a.qcow2"), name)}
