"""What a process leaves to the next one when the service restarts, in memory that no file system has.

    document ──seal()──> descriptor of sealed memory, kept by the service manager ──unseal()──> document

The memory is gone with the last descriptor, and with the machine. Knows the format; knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Optional

from ovirt_imageio import errors

__all__ = ["FORMAT", "invalid", "seal", "unseal"]

# Another number is another format: a process that knows it not forgets all tickets.
FORMAT = 1

# A ticket takes 1 KiB, and 20 bytes for each part of the disk that was moved, of which there may be a million.
LIMIT = 1024**3

# A service that was not back by then has failed to start again and again, and meanwhile tickets lost their meaning.
LONGEST_SECONDS = 600.0

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def seal(document: dict[str, Any], now: Optional[float] = None) -> int:
    """Return the descriptor of memory that holds a document, and cannot be changed; raises OSError.

    now: on the clock that all processes of the system share, time.monotonic().
    """
    data = json.dumps({"format": FORMAT, "left": time.monotonic() if now is None else now, **document}).encode()
    with contextlib.ExitStack() as undo:
        descriptor = os.memfd_create("ovirt-imageio", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        undo.callback(os.close, descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        undo.pop_all()
        return descriptor


def unseal(descriptor: int, now: Optional[float] = None) -> dict[str, Any]:
    """Return the document that sealed memory holds; raises errors.InvalidValue, which shows nothing of it."""
    document = decode(read(descriptor))
    left = document.get("left")
    age = (time.monotonic() if now is None else now) - left if isinstance(left, (int, float)) else -1.0
    if not 0 <= age <= LONGEST_SECONDS:
        raise invalid(f"left {age:.0f} seconds ago", f"at most {LONGEST_SECONDS:.0f}")
    return document


def read(descriptor: int) -> bytes:
    """Return what sealed memory holds. Raises errors.InvalidValue."""
    try:
        # Only memory has seals: what could be changed by another program is not ours.
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) != SEALS:
            raise invalid("not sealed", "sealed memory")
        size = os.fstat(descriptor).st_size
        if size > LIMIT:
            raise invalid(f"{size} bytes", f"at most {LIMIT} bytes")
        return os.pread(descriptor, size, 0)
    except OSError as error:
        raise invalid(error.strerror or "error", "sealed memory that can be read") from None


def decode(data: bytes) -> dict[str, Any]:
    """Return a document of our format. Raises errors.InvalidValue."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        # From None: the first error has the text.
        raise invalid(f"{len(data)} bytes", "JSON") from None
    if not isinstance(document, dict):
        raise invalid(type(document).__name__, "a JSON object")
    found = document.get("format")
    if type(found) is not int or found != FORMAT:
        raise invalid(f"format {found}" if type(found) is int else "no format", f"format {FORMAT}")
    return document


def invalid(found: str, expected: str) -> errors.InvalidValue:
    """Return the error for memory that we cannot use."""
    return errors.InvalidValue("hand-over", found, expected)
