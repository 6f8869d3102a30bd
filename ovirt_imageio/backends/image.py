"""A disk in an image that qemu-nbd opens for us, wherever the cluster keeps it.

    image:FORMAT[,secret=NAME]:URL

    image:raw:rbd:vms/disk                          image:qcow2:nfs://nas/images/disk.qcow2
    image:luks,secret=office:file:///images/a       with the passphrase that the administrator calls so

The format is named, because one that is looked for is chosen by a guest that writes. Behind it is an NBD server that
other connections share; it ends some time after the last one. A server that died is started again by the next use.

Knows URLs and NBD; what starts the servers is an option.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import HeldImage, Terms
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.qemu import urls
from ovirt_imageio.qemu.urls import ImageURL

__all__ = ["DiskImage", "ImageBackend", "check_url", "open_backend", "parse"]

# The name of a secret is that of a file.
URL = re.compile(
    r"image:(?P<format>raw|qcow2|luks)(?:,secret=(?P<secret>[A-Za-z0-9][A-Za-z0-9._-]{0,63}))?:(?P<url>.+)", re.DOTALL
)

FORM = "image:FORMAT[,secret=NAME]:URL, where FORMAT is raw, qcow2 or luks"


class DiskImage(NamedTuple):
    """What the URL of a ticket says."""

    format: str
    # The name of its passphrase.
    secret: Optional[str]
    url: ImageURL


def parse(url: str) -> DiskImage:
    """Return what a URL says. Raises errors.InvalidValue."""
    found = URL.fullmatch(url)
    if not found:
        raise errors.InvalidValue("url", url, FORM)
    format, secret = found["format"], found["secret"]
    if (format == "luks" and secret is None) or (format == "raw" and secret is not None):
        raise errors.InvalidValue("url", url, f"{FORM}; luks needs a secret, and raw has none")
    where = urls.parse(found["url"])
    if where.text.startswith("nbd"):
        # The backend for NBD serves it as it is.
        raise errors.InvalidValue("url", url, "the URL of an image; that of an NBD server stands alone")
    return DiskImage(format, secret, where)


class ImageBackend(NBDBackend):
    """One connection to the server of an image, which is held until close()."""

    name = "image"
    # The server of the next one may be elsewhere.
    can_recover = False

    # Set once it is open.
    held: Optional[HeldImage] = None

    def close(self) -> None:
        """Say good-bye to the server, and let it end unless another client needs it."""
        try:
            super().close()
        finally:
            if self.held is not None:
                self.held.close(self._connection.has_failed)


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if url names no image; whether it may be used is not known here."""
    parse(url)


def open_backend(url: str, terms: Terms) -> ImageBackend:
    """Connect to a server of the image, which is started if there is none; it has no use for the trace."""
    options = terms.options
    if options.images is None:
        raise errors.StorageError("open", "the administrator does not permit images")
    held = options.images.open(url, writable=terms.writable, line=terms.line)
    try:
        backend = ImageBackend(
            held.url,
            writable=terms.writable,
            sparse=terms.sparse,
            dirty=terms.dirty,
            max_connections=options.max_connections,
            connect_timeout=options.nbd_connect_timeout,
            reply_timeout=options.nbd_reply_timeout,
            line=terms.line,
        )
    except BaseException:
        held.close(has_failed=True)
        raise
    backend.held = held
    return backend
