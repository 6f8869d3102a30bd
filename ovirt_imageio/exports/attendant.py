"""The process that attends one qemu-nbd: it looks at the image, starts the server, and ends it.

    daemon ──socket──> attendant ──> qemu-nbd

It takes no more from the daemon than the URL of an image: what may be opened was decided before the daemon spoke to any
client. It tells the daemon where the server is, or why there is none; then it ends when the socket is closed, also by
the death of the daemon, or when the server ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.backends import image
from ovirt_imageio.backends.allowed import Allowed
from ovirt_imageio.backends.image import DiskImage
from ovirt_imageio.exports import locks
from ovirt_imageio.exports.settings import Settings
from ovirt_imageio.qemu import chain, img
from ovirt_imageio.qemu.nbd import QemuNbd
from ovirt_imageio.qemu.node import as_json
from ovirt_imageio.qemu.urls import ImageURL

__all__ = ["attend"]

NOT_SHOWN = "the image uses another one that it may not use; the log of the service tells which"


def attend(channel: socket.socket, order: Mapping[str, Any], settings: Settings) -> None:
    """Serve an image until the other end of the channel is closed.

    order: the URL of the "image", and whether it shall be "writable".
    """
    path = os.path.join(settings.folder, f"{os.getpid()}.sock")
    try:
        disk = image.parse(order["image"])
        server = make_server(disk, order["writable"], path, settings)
        server.start()
    except errors.Error as error:
        # The daemon may be gone.
        with contextlib.suppress(OSError):
            channel.send(json.dumps(refusal(error, order["image"])).encode())
        return
    try:
        if settings.is_shared:
            # To connect takes the right to write. The folder keeps all users away but us and the group of the daemon.
            os.chmod(path, 0o666)
        threading.Thread(target=watch, args=(server, channel), daemon=True).start()
        channel.send(json.dumps({"url": server.url, "pid": server.pid}).encode())
        channel.recv(1)
    except OSError:
        # As good as closed.
        pass
    finally:
        server.stop()
        # One that was killed has left it.
        Path(path).unlink(missing_ok=True)


def watch(server: QemuNbd, channel: socket.socket) -> None:
    """Let attend() go on when the server ends. The daemon sees the end of the channel when all is removed."""
    server.wait()
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RD)


def make_server(disk: DiskImage, writable: bool, path: str, settings: Settings) -> QemuNbd:
    """Return a server that is not started. Raises errors.Error."""
    allowed = Allowed(settings.allow)
    secret = None
    if disk.secret is not None:
        secret = os.path.join(settings.secrets_dir or "/", disk.secret)
        if settings.secrets_dir is None or not os.access(secret, os.R_OK):
            raise errors.BackendUnavailable(
                "open the image", f"there is no secret {disk.secret!r}, or it may not be read"
            )

    def look(tree: Mapping[str, Any]) -> Mapping[str, Any]:
        return img.info(as_json(tree), secret=secret, timeout=settings.start_seconds, wrapper=settings.sandbox)

    def admit(url: ImageURL) -> Optional[ImageURL]:
        return admitted(url, allowed)

    where = admit(disk.url)
    if where is None:
        raise errors.UnsafeImage(disk.url.text, "[export] allow does not permit it, or what a link leads to")
    if writable:
        locks.check(where.node, settings.start_seconds, settings.sandbox)
    tree = chain.build(where, disk.format, look, admit, is_encrypted=secret is not None)
    return QemuNbd(
        where.path or "",
        disk.format,
        listen=path,
        read_only=not writable,
        # Each connection of a client has one of its own.
        shared=0,
        image=tree,
        secret=secret,
        wrapper=settings.sandbox,
        timeout=settings.start_seconds,
    )


def admitted(url: ImageURL, allowed: Allowed) -> Optional[ImageURL]:
    """Return what to open for an image, without links in its path; None if it may not be opened."""
    if not is_permitted(url, allowed):
        return None
    if url.path is None:
        return url
    real = os.path.realpath(url.path)
    found = ImageURL(f"file://{real}", real)
    return found if is_permitted(found, allowed) else None


def is_permitted(url: ImageURL, allowed: Allowed) -> bool:
    try:
        return allowed.permits(url.text)
    except errors.InvalidValue:
        return False


def refusal(error: errors.Error, url: str) -> dict[str, Any]:
    """Return what the daemon is told: its clients may know a `reason`, but not where the image is."""
    disk = image.parse(url).url
    if isinstance(error, errors.StorageError):
        reason = error.reason
        # The longest one first: one may be a part of another.
        names = {url, disk.text, disk.path or "", os.path.realpath(disk.path) if disk.path else "", settled(reason)}
        for name in sorted(names - {""}, key=len, reverse=True):
            reason = reason.replace(name, "(the image)")
    else:
        reason = NOT_SHOWN if isinstance(error, errors.UnsafeImage) else "it is not a file that can be served"
    detail = str(error)
    if disk.shown != disk.text:
        detail = detail.replace(settled(detail) or disk.text, disk.shown).replace(disk.text, disk.shown)
    return {"reason": reason, "is_late": isinstance(error, errors.BackendTimeout), "detail": detail}


def settled(reason: str) -> str:
    """Return the tree of nodes that qemu quotes, "" if it does not."""
    start, end = reason.find("json:{"), reason.rfind("}")
    return reason[start : end + 1] if 0 <= start < end else ""
