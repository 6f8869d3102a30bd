"""An image as qemu names it: a path, or a tree of block nodes as JSON after `json:`.

    raw or qcow2 or ...       the format, left out to let qemu look for one
      └── raw                 a part of the file, where the image is a member of an archive
            └── file          or host_device, or another driver: rbd, https

Knows the names that qemu gives to nodes; knows nothing of its programs and of archives.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.qemu.version import DEPTH_SINCE, version

__all__ = ["SECRET", "as_json", "file_node", "formatted", "image_spec", "is_block_device", "location", "secret_options"]

# The passphrase of an encrypted image, as qemu is told it.
SECRET = "secret"


def image_spec(
    path: str,
    format: Optional[str] = None,
    *,
    offset: Optional[int] = None,
    size: Optional[int] = None,
    backing_chain: bool = True,
) -> str:
    """Return what tells qemu which image to open, in the whole file or in a part of it.

    backing_chain: False opens only the top image of a chain. Raises errors.BackendUnavailable if qemu is too old,
    errors.InvalidValue for what qemu opens as no image.
    """
    file = file_node(path, offset, size)
    if format == "raw" and file["driver"] == "raw":
        return as_json(file)
    image: dict[str, Any] = {"file": file}
    if format:
        image["driver"] = format
    if not backing_chain and format == "qcow2":
        if version() < DEPTH_SINCE:
            raise errors.BackendUnavailable("serve one image of a chain", "this needs qemu-nbd 5.2.0 or newer")
        image["backing"] = None
    return as_json(image)


def location(path: str, offset: Optional[int] = None, size: Optional[int] = None) -> str:
    """Return what qemu-img calls an image whose format it shall find: a path, if it is a whole file.

    Raises errors.InvalidValue for what qemu opens as no image.
    """
    check_kind(path)
    path = os.path.abspath(path)
    return path if offset is None and size is None else image_spec(path, offset=offset, size=size)


def formatted(node: Mapping[str, Any], format: Optional[str], *, is_encrypted: bool = False) -> dict[str, Any]:
    """Return the node of the format over the node of what holds the image; qemu knows its passphrase as SECRET."""
    image: dict[str, Any] = {"driver": format} if format else {}
    if is_encrypted:
        key = {"key-secret": SECRET}
        image.update(key if format == "luks" else {"encrypt": {"format": "luks", **key}})
    return {**image, "file": dict(node)}


def secret_options(file: Optional[str]) -> list[str]:
    """Return the options that tell a program of qemu the passphrase in a file."""
    if file is None:
        return []
    # A comma ends a value, unless there are two.
    return ["--object", f"secret,id={SECRET},file={file.replace(',', ',,')}"]


def file_node(path: str, offset: Optional[int] = None, size: Optional[int] = None) -> dict[str, Any]:
    """Return the node of a file, or of a part of it."""
    check_kind(path)
    node: dict[str, Any] = {"driver": "host_device" if is_block_device(path) else "file", "filename": in_json(path)}
    if offset is None and size is None:
        return node
    part: dict[str, Any] = {"driver": "raw", "offset": offset or 0, "file": node}
    return part if size is None else {**part, "size": size}


def check_kind(path: str) -> None:
    """Raise errors.InvalidValue for what is neither a file nor a block device: qemu waits for ever for a FIFO."""
    if os.path.exists(path) and not os.path.isfile(path) and not is_block_device(path):
        raise errors.InvalidValue("image", path, "a file, or a block device")


def in_json(path: str) -> str:
    """Return a path as JSON can tell it, whatever the locale. Raises errors.InvalidValue if it cannot."""
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise errors.InvalidValue("image", path, "a name in UTF-8, which is all that qemu takes: rename it") from None


def is_block_device(path: str) -> bool:
    """Return True if path is a block device; a path that does not exist is not."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def as_json(node: Mapping[str, Any]) -> str:
    """Return what tells qemu to open a tree of nodes."""
    return "json:" + json.dumps(node)
