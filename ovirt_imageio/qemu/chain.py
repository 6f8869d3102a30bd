"""An image and everything below it, as a tree that names each part: what the image itself says is looked at, not
followed.

An image can name any other one as its backing file, and any file as where its data is. The names were chosen where the
image was made, and may change while a guest writes it. So qemu is told the whole chain, and opens nothing else.

    format   named, never looked for: an image that a guest wrote may look like any other
    backing  an image that is permitted, too, and whose format is told
    data     in the image

Knows what qemu-img tells; opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Callable, Optional

from ovirt_imageio.errors import InvalidValue, UnsafeImage, quoted
from ovirt_imageio.qemu import urls
from ovirt_imageio.qemu.node import file_node, formatted
from ovirt_imageio.qemu.references import MAX_LAYERS
from ovirt_imageio.qemu.urls import ImageURL

__all__ = ["FORMATS", "build"]

Node = Mapping[str, Any]

# The formats of disks that guests write; of all that qemu reads, these were looked at the most.
FORMATS = ("raw", "qcow2", "luks")


def build(
    url: ImageURL,
    format: str,
    look: Callable[[Node], Mapping[str, Any]],
    admit: Callable[[ImageURL], Optional[ImageURL]],
    *,
    is_encrypted: bool = False,
    depth: int = 0,
) -> dict[str, Any]:
    """Return the tree of nodes of an image of one of FORMATS.

    look: tells of an image what qemu-img knows. admit: returns what to open for a lower layer, None if that may not be.
    Raises UnsafeImage, and what they raise.
    """
    if depth > MAX_LAYERS:
        raise UnsafeImage(url.text, f"it stands on more than {MAX_LAYERS} other images, or on itself")
    tree = formatted(place_of(url), format, is_encrypted=is_encrypted)
    if format != "qcow2":
        return tree
    info = look(tree)
    if "data-file" in info.get("format-specific", {}).get("data", {}):
        raise UnsafeImage(url.text, "its data is in another file")
    named = backing(url, info)
    if named is None:
        return {**tree, "backing": None}
    below = admit(named)
    if below is None:
        raise UnsafeImage(url.text, f"it stands on {quoted(named.text)}, which is not permitted")
    below_format = info.get("backing-filename-format")
    if below_format not in FORMATS:
        kind = "without its format" if below_format is None else f"of the format {quoted(below_format)}"
        raise UnsafeImage(
            url.text, f"it stands on an image {kind}: name one of {', '.join(FORMATS)} by qemu-img rebase -u"
        )
    return {**tree, "backing": build(below, below_format, look, admit, depth=depth + 1)}


def place_of(url: ImageURL) -> Node:
    """Return the node of what holds an image."""
    return url.node if url.path is None else file_node(url.path)


def backing(url: ImageURL, info: Mapping[str, Any]) -> Optional[ImageURL]:
    """Return where the image below is, None if there is none. Raises UnsafeImage."""
    name = info.get("backing-filename")
    if name is None:
        return None
    # qemu knows what a relative name means where the image is.
    full = info.get("full-backing-filename", name)
    if url.path is not None and urls.PROTOCOL.match(name) is None:
        full = os.path.join(os.path.dirname(url.path), name)
    try:
        return urls.parse(f"file://{os.path.abspath(full)}" if urls.PROTOCOL.match(full) is None else full)
    except InvalidValue:
        raise UnsafeImage(url.text, f"it stands on something that cannot be used, {quoted(name)}") from None
