"""The document of a new ticket: read from a file, or made of arguments; and the URL that clients get.

Knows files and the configuration; knows nothing of the service.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import stat
import sys
import urllib.parse
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Optional

from ovirt_imageio.config import Config

__all__ = ["DiskChoice", "Mistake", "hint", "make", "read", "transfer_url"]

# No ticket is larger; a mistyped name of a disk image must not fill the memory.
MAX_TICKET = 1024 * 1024

# These listen on every address: clients know this machine by its name.
WILDCARDS = ("", "::", "0.0.0.0")

# A transfer id has up to 255 characters, as has the name of a file; a line that shows it has fewer.
MAX_NAME = 100

# How a qcow2 image begins.
QCOW2 = b"QFI\xfb"


class Mistake(Exception):
    """The user gave something that cannot be used."""


class DiskChoice(NamedTuple):
    """What a person asks for: the disk at a path or at a URL."""

    path: Optional[str] = None
    url: Optional[str] = None
    size: Optional[int] = None
    read_only: bool = False
    timeout: int = 3600


def read(filename: str) -> Any:
    """Return the JSON document in a file, or on standard input for "-". Raises Mistake."""
    name = "standard input" if filename == "-" else filename
    try:
        if filename == "-":
            data = sys.stdin.buffer.read(MAX_TICKET + 1)
        else:
            with open(filename, "rb") as file:
                data = file.read(MAX_TICKET + 1)
    except OSError as e:
        raise Mistake(f"Cannot read {name}: {e.strerror}") from e
    if len(data) > MAX_TICKET:
        raise Mistake(f"{name} is larger than any ticket")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as e:
        raise Mistake(f"{name} is not JSON: {e}") from e


def make(choice: DiskChoice) -> dict[str, Any]:
    """Return a ticket with a random id for what was asked for. Raises Mistake."""
    path = choice.path or path_of(choice.url or "")
    if path is not None:
        url = Path(os.path.abspath(path)).as_uri()
        size = size_of(path) if choice.size is None else choice.size
        name = os.path.basename(os.path.abspath(path))
    else:
        assert choice.url
        if choice.size is None:
            raise Mistake("Only of files is the size known: add --size, such as --size 10g")
        url, size = choice.url, choice.size
        # Not more of it: the URL of an image on another server ends with its secret.
        name = urllib.parse.urlsplit(url).scheme
    return {
        "uuid": str(uuid.uuid4()),
        # Easy to read and to type, and different for each ticket of a disk.
        "transfer_id": f"{name[:MAX_NAME]}-{secrets.token_hex(2)}",
        "url": url,
        "size": size,
        "ops": ["read"] if choice.read_only else ["write"],
        "timeout": choice.timeout,
        "sparse": True,
        **({"filename": name} if path is not None else {}),
    }


def hint(choice: DiskChoice) -> Optional[str]:
    """Return what the user should know about the disk, None if there is nothing to tell."""
    path = choice.path or path_of(choice.url or "")
    try:
        with open(path or os.devnull, "rb", opener=open_now) as file:
            is_qcow2 = file.read(len(QCOW2)) == QCOW2
    except OSError:
        return None
    if not is_qcow2:
        return None
    return f"{path} is a qcow2 image: clients get the file itself; `ovirt-imageio serve` gives them the disk in it"


def transfer_url(config: Config, ticket_id: str) -> str:
    """Return the URL of a ticket for clients on other machines. Raises Mistake if the configuration does not tell."""
    remote = config.remote
    if remote.port == 0:
        raise Mistake("[remote] port is 0: only the log of the daemon tells the port that clients need")
    host = socket.gethostname() if remote.host in WILDCARDS else remote.host
    if ":" in host:
        host = f"[{host}]"
    scheme = "https" if config.tls.enable else "http"
    return f"{scheme}://{host}:{remote.port}/images/{urllib.parse.quote(ticket_id, safe='')}"


def path_of(url: str) -> Optional[str]:
    """Return the path in the URL of a file, None for other URLs."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as e:
        raise Mistake(f"{url!r} is not a URL: {e}") from e
    return urllib.parse.unquote(parts.path) if parts.scheme == "file" else None


def size_of(path: str) -> int:
    """Return the size of a file or block device. Raises Mistake."""
    try:
        with open(path, "rb", opener=open_now) as file:
            if stat.S_ISREG(mode := os.fstat(file.fileno()).st_mode) or stat.S_ISBLK(mode):
                return file.seek(0, os.SEEK_END)
    except OSError as e:
        raise Mistake(f"Cannot find the size of {path}: {e.strerror}") from e
    raise Mistake(f"{path} is neither a file nor a block device")


def open_now(path: str, flags: int) -> int:
    """Open a file; a FIFO is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)
