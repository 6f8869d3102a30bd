"""Archives with a member "disk" that is not what it seems, and what becomes of them.

For each: what its header says, and "found" or the names of the errors that are good.
"""

from __future__ import annotations

import tarfile
from typing import Any

__all__ = ["INPUTS"]

INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "plain file": ({}, "found"),
    "nothing in it": ({"size": 0}, "found"),
    "link": ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "MemberNotFound"),
    "hard link": ({"type": tarfile.LNKTYPE, "linkname": "disk", "size": 0}, "MemberNotFound"),
    "device": ({"type": tarfile.BLKTYPE, "devmajor": 8, "size": 0}, "MemberNotFound"),
    "another name": ({"name": "other"}, "MemberNotFound"),
    "name of an attribute": ({"pax_headers": {"path": "other"}}, "MemberNotFound"),
    "size of an attribute": ({"pax_headers": {"size": "9" * 15}}, "NotAnArchive"),
    # Newer Pythons find no member there.
    "size below nothing": ({"pax_headers": {"size": "-1"}}, "NotAnArchive or MemberNotFound"),
    "size that is not a number": ({"pax_headers": {"size": "many"}}, "found"),
    "holes": ({"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"}}, "MemberNotFound"),
    "holes without end": ({"pax_headers": {"GNU.sparse.map": "0,1,2"}}, "MemberNotFound"),
}
