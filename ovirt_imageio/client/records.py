"""What ovirt-img writes for programs: JSON objects, one a line, each with a "type".

    progress    how far it is
    extent      a part of an image
    point       a point in time of a folder with backups
    plan        what would be done: of --dry-run and --estimate, instead of a result
    result      the last one of a command that did its work
    error       the last one of a command that failed

Programs read these keys: new ones may come, those that are here stay. Pure: tables and lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["to_line"]

# What a copy tells.
COPY = ("transferred", "elapsed", "connection", "tls", "protocol", "proxy", "mode")

# The keys of results and plans, beside "type" and "command".
RESULTS: Mapping[str, tuple[str, ...]] = {
    "upload": COPY,
    "download": COPY,
    "backup": (*COPY, "filename", "base", "size", "bytes", "sha256"),
    "verify": ("algorithm", "checksum"),
    "info": ("info",),
    "measure": ("measure",),
    "checksum": ("algorithm", "block_size", "checksum"),
    "extents": ("extents", "size"),
    "upload-disk": (*COPY, "disk_id"),
    "download-disk": COPY,
    "backup-vm": (*COPY, "vm", "vm_id", "folder", "point", "checkpoint", "disks"),
    "restore": (*COPY, "vm", "vm_id", "folder", "point", "disks"),
}
PLANS: Mapping[str, tuple[str, ...]] = {
    "upload": ("size", "replaces"),
    "download": ("size", "replaces"),
    "backup": ("size", "replaces"),
    "download-disk": ("replaces",),
    "backup-vm": ("vm", "vm_id", "folder", "mode", "disks", "bytes_at_most", "bytes_free", "leftovers"),
    "restore": ("vm", "vm_id", "folder", "point", "disks", "replaces"),
}

# The keys of the others, beside "type".
OTHERS: Mapping[str, tuple[str, ...]] = {
    "progress": ("transferred", "elapsed", "description", "size"),
    "extent": ("start", "length", "zero", "hole", "dirty"),
    "point": ("name", "mode", "checkpoint", "quiesced", "disks"),
    "error": ("command", "message", "status"),
}


def to_line(kind: str, fields: Mapping[str, Any]) -> str:
    """Return the line of a record."""
    return json.dumps({"type": kind, **fields}) + "\n"
