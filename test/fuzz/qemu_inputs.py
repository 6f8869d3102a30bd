"""What qemu-img may tell of an image, and whether the image may be used.

For each: what it tells, and "good" or "unsafe".
"""

from __future__ import annotations

from typing import Any

__all__ = ["INPUTS"]


def data(**fields: Any) -> dict[str, Any]:
    """Return what it tells of an image whose data is elsewhere."""
    return {"filename": "/images/top", "format-specific": {"data": fields}}


INPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "good"),
    "name of a file": ({"backing-filename": "base"}, "good"),
    "name that is empty": ({"backing-filename": ""}, "good"),
    "colon behind a slash": ({"backing-filename": "./a:b"}, "good"),
    "itself among its parts": (data(extents=[{"filename": "/images/top"}]), "good"),
    "part beside it": (data(extents=[{"filename": "part"}]), "good"),
    # Found by fuzzing: these ended in a ValueError.
    "name with a NUL": ({"backing-filename": "a\0b"}, "unsafe"),
    "half a character": ({"backing-filename": "\ud800"}, "unsafe"),
    "data in a file with a NUL": (data(**{"data-file": "\0"}), "unsafe"),
    # Found by fuzzing: the error would have driven the terminal.
    "escape sequence": ({"backing-filename": "nbd:\x1b[2J"}, "unsafe"),
    "protocol": ({"backing-filename": "nbd://host"}, "unsafe"),
    "protocol behind a file": ({"backing-filename": "file:json:{}"}, "unsafe"),
    "part elsewhere": (data(extents=[{"filename": "/etc/passwd"}]), "unsafe"),
    "part above": (data(extents=[{"filename": "../part"}]), "unsafe"),
}
