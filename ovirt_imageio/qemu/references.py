"""Which other files an image uses, and whether it may.

An image can name any file of this host: as its backing file, as where its data is, or as a part of it. The names were
chosen where the image was made, so an image of a stranger could have a file of this host sent to a server.

    backing file      a plain file, never what qemu would look for elsewhere (json:, nbd:, https:)
    data, parts       a plain file in the folder of the image
    in an archive     nothing: the image must be complete

Knows what qemu-img tells; opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Callable, Optional

from ovirt_imageio.errors import UnsafeImage, quoted
from ovirt_imageio.qemu.urls import PROTOCOL

__all__ = ["MAX_LAYERS", "check"]

# Longer chains are slow beyond use.
MAX_LAYERS = 200

Info = Mapping[str, Any]


def check(
    path: str, info: Info, look: Callable[[str, Optional[str]], Info], *, is_member: bool, backing_chain: bool
) -> None:
    """Raise UnsafeImage if the image at path, of which qemu-img tells this, uses a file that it should not.

    `look` tells of a lower layer, at a path and of a format, None if that is not known.
    """
    top, layers = path, set[str]()
    while len(layers) < MAX_LAYERS and os.path.realpath(path) not in layers:
        layers.add(os.path.realpath(path))
        check_parts(path, info, is_member)
        name = info.get("backing-filename")
        if name is None or not backing_chain:
            return
        if is_member:
            raise UnsafeImage(path, f"it stands on another file, {quoted(name)}, which is not in the archive")
        path = resolve(path, name, "it stands on")
        info = look(path, info.get("backing-filename-format"))
    raise UnsafeImage(top, f"it stands on more than {MAX_LAYERS} other files, or on itself")


def check_parts(path: str, info: Info, is_member: bool) -> None:
    """Raise UnsafeImage if the data of an image is in a file elsewhere."""
    folders = {os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.dirname(os.path.realpath(path))}
    for name in parts(info):
        if is_member:
            raise UnsafeImage(path, f"its data is in another file, {quoted(name)}, which is not in the archive")
        place = resolve(path, name, "its data is in")
        if os.path.dirname(os.path.realpath(place)) not in folders:
            raise UnsafeImage(path, f"its data is in another folder, in {quoted(name)}")


def parts(info: Info) -> Iterator[str]:
    """Yield the names of files with data of the image, but for the image itself."""
    data = info.get("format-specific", {}).get("data", {})
    if "data-file" in data:
        yield data["data-file"]
    for extent in data.get("extents", ()):
        if extent.get("filename") not in (None, info.get("filename")):
            yield extent["filename"]


def is_path(name: str) -> bool:
    """Return True if the kernel takes this name."""
    try:
        return b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        return False


def resolve(path: str, name: str, what: str) -> str:
    """Return the path of a file that an image names. Raises UnsafeImage unless it is the name of a plain file."""
    plain = name[len("file:") :] if name.startswith("file:") else name
    if PROTOCOL.match(plain) or not is_path(plain):
        raise UnsafeImage(path, f"{what} something that is not a file, {quoted(name)}")
    return os.path.join(os.path.dirname(path), plain)
