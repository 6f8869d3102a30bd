"""What is served: an image, here or on storage of a network, all images of a folder, or files as they are.

Knows files and qemu-img; knows nothing of servers and tickets.
"""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from ovirt_imageio import errors, units
from ovirt_imageio.qemu import chain, img, references, urls
from ovirt_imageio.qemu.node import as_json, file_node, formatted, location
from ovirt_imageio.qemu.urls import ImageURL
from ovirt_imageio.service.serve import demo

__all__ = ["ServedImage", "Wanted", "find"]

log = logging.getLogger("serve")

# The formats that a new image gets by its name.
SUFFIXES = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx", ".qed": "qed"}
# In a folder these are raw disks; other files without a known format are something else.
RAW_SUFFIXES = (".raw", ".img", ".iso")

# Control characters, bytes that are not UTF-8, ends of lines and paragraphs: how Unicode calls them.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")

# How long storage of a network may take to tell of an image.
LOOK_TIMEOUT = 30.0

# The format of an image whose bytes are served as they are.
FILE = "file"


class ServedImage(NamedTuple):
    """One disk, or one file."""

    # Or where it is on storage of a network: then it has a title.
    path: str
    format: str
    size: int
    title: str = ""
    # How qemu opens it, if that is not the file at path in its format.
    tree: Optional[Mapping[str, Any]] = None

    @property
    def name(self) -> str:
        """Its name without the folder."""
        return self.title or os.path.basename(self.path)

    @property
    def is_file(self) -> bool:
        """True if the bytes of the file are served, not the disk in it."""
        return self.format == FILE


class Wanted(NamedTuple):
    """What the user asked for."""

    path: str
    format: Optional[str] = None
    # Create the image if it does not exist: empty, or with something on it.
    size: Optional[int] = None
    demo: bool = False
    read_only: bool = False
    # Serve the bytes of the file, whatever they are.
    as_file: bool = False
    # A file with the passphrase of an encrypted image.
    secret: Optional[str] = None


def find(wanted: Wanted) -> list[ServedImage]:
    """Return what to serve; an image that does not exist is created if it may be. Raises errors.Error."""
    url = url_of(wanted.path)
    if url is not None and url.path is None:
        return [elsewhere(wanted, url)]
    if url is not None and url.path is not None:
        wanted = wanted._replace(path=url.path)
    if wanted.secret is not None and not os.access(wanted.secret, os.R_OK):
        raise errors.InvalidValue("secret", wanted.secret, "a file that you may read, with a passphrase in it")
    if os.path.isdir(wanted.path):
        return in_folder(wanted)
    check_name(wanted.path)
    if not os.path.exists(wanted.path):
        create(wanted)
    check_access(wanted)
    if wanted.as_file:
        return [as_file(wanted.path)]
    found = look(wanted)
    if is_misnamed(found, wanted):
        log.warning("%s is not a %s image: its bytes are served as a raw disk", wanted.path, suffix(wanted.path)[1:])
    if wanted.size is not None and found.size != wanted.size:
        log.warning("%s exists and has %s: --size is not used", wanted.path, units.size(found.size))
    return [found]


def create(wanted: Wanted) -> None:
    """Create the image."""
    path = wanted.path
    format = wanted.format or SUFFIXES.get(suffix(path), "raw")
    if wanted.demo:
        demo.create(path, format)
    elif wanted.size is not None:
        img.create(location(path), format, wanted.size)
    else:
        raise errors.InvalidValue("image", path, "a file that exists; or add --size 10g, and it will be created")


def check_name(path: str) -> None:
    """Raise errors.InvalidValue for a name that must not reach a terminal, a log or a header."""
    if any(unicodedata.category(character) in UNPRINTABLE for character in path):
        raise errors.InvalidValue("image", path, "a name in UTF-8 without control characters: rename it")


def check_access(wanted: Wanted) -> None:
    """Raise errors.InvalidValue if this user may not do with the file what clients shall do."""
    path = wanted.path
    read_only = wanted.read_only or wanted.as_file
    if not os.access(path, os.R_OK if read_only else os.R_OK | os.W_OK):
        can_read = os.access(path, os.R_OK)
        hint = "add --read-only, or change its permissions" if can_read else "change its permissions"
        raise errors.InvalidValue("image", path, f"a file that you may {'write' if can_read else 'read'}; {hint}")


def look(wanted: Wanted) -> ServedImage:
    """Return the image that exists; it may stand on other files, but not on everything that qemu would open."""
    path = os.path.abspath(wanted.path)
    info = info_of(path, wanted.format)
    references.check(path, info, info_of, is_member=False, backing_chain=True)
    is_encrypted = wanted.secret is not None and info["format"] != "raw"
    tree = formatted(file_node(path), info["format"], is_encrypted=True) if is_encrypted else None
    return ServedImage(path, info["format"], info["virtual-size"], tree=tree)


def url_of(text: str) -> Optional[ImageURL]:
    """Return where an image is that a URL or `json:` names, None for a path. Raises errors.InvalidValue."""
    if os.path.exists(text):
        return None
    if text.startswith("json:"):
        try:
            node = json.loads(text[len("json:") :])
        except (ValueError, RecursionError):
            node = None
        if not isinstance(node, dict) or "driver" not in node:
            raise errors.InvalidValue("image", text, 'a JSON object after json:, with a "driver" in it')
        return ImageURL(text, None, node)
    return urls.parse(text) if text.partition(":")[0] in urls.SCHEMES else None


def elsewhere(wanted: Wanted, url: ImageURL) -> ServedImage:
    """Return the image on storage of a network; it may stand on images of the same server or pool."""
    if wanted.size is not None or wanted.demo or wanted.as_file:
        raise errors.InvalidValue("image", url.text, "a file of this host with --size, --demo and --file")
    check_name(url.text)

    def look(tree: Mapping[str, Any]) -> dict[str, Any]:
        return img.info(as_json(tree), secret=wanted.secret, timeout=LOOK_TIMEOUT)

    def same_place(below: ImageURL) -> Optional[ImageURL]:
        return below if below.place == url.place and below.path is None else None

    if "file" in url.node:
        # A user who names a format in JSON has said it all.
        tree, format = dict(url.node), str(url.node["driver"])
    else:
        format = wanted.format or look(formatted(url.node, None))["format"]
        is_encrypted = wanted.secret is not None and format != "raw"
        if format in chain.FORMATS:
            tree = chain.build(url, format, look, same_place, is_encrypted=is_encrypted)
        else:
            tree = formatted(url.node, format, is_encrypted=is_encrypted)
    return ServedImage(
        url.text, format, look(tree)["virtual-size"], "disk" if url.text[:5] == "json:" else url.name, tree
    )


def info_of(path: str, format: Optional[str]) -> dict[str, Any]:
    """Return what qemu-img knows of the image in a file."""
    return img.info(location(path), format)


def is_misnamed(image: ServedImage, wanted: Wanted) -> bool:
    """Tell whether the name promises a format that the image does not have: it may be damaged, or something else."""
    return image.format == "raw" and suffix(image.path) in SUFFIXES and not wanted.format


def as_file(path: str) -> ServedImage:
    """Return the file itself."""
    size = os.stat(path).st_size
    if not os.path.isfile(path) or not size:
        raise errors.InvalidValue("file", path, "a regular file that is not empty")
    return ServedImage(os.path.abspath(path), FILE, size)


def in_folder(wanted: Wanted) -> list[ServedImage]:
    """Return the images in a folder, by name; hidden ones, and those in folders below, are left out."""
    if wanted.size is not None or wanted.demo:
        raise errors.InvalidValue("image", wanted.path, "the name of an image to create, but it is a folder")
    found = []
    for entry in sorted(os.scandir(wanted.path), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_file():
            continue
        one = wanted._replace(path=entry.path)
        try:
            check_name(entry.path)
            check_access(one)
            image = as_file(entry.path) if wanted.as_file else look(one)
        except errors.Error as error:
            log.warning("%s is not served: %s", entry.path, error)
            continue
        if is_misnamed(image, one):
            log.warning("%s is not served: it is not a %s image", entry.path, suffix(entry.path)[1:])
        elif image.format != "raw" or wanted.format or suffix(entry.name) in RAW_SUFFIXES:
            found.append(image)
    if not found:
        raise errors.InvalidValue("image", wanted.path, "a folder with disk images in it, but there are none")
    return found


def suffix(path: str) -> str:
    """Return the end of a name."""
    return os.path.splitext(path)[1].lower()
