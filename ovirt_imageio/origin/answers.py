"""What an origin answers: believed only where it makes sense, and quoted where it refuses.

Knows replies; knows neither the requests that they answer nor the disk.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from typing import Any

from ovirt_imageio import errors
from ovirt_imageio.origin.reply import Reply

__all__ = ["holds_range", "is_passing", "read_checksum", "read_object", "read_refusal", "read_stored"]

# How much of what the origin tells about an error is shown.
TEXT_LIMIT = 512

# Larger than any answer to OPTIONS or checksum.
JSON_LIMIT = 1024 * 1024

# Answers with which a server tells that it cannot now: time-out, too many requests, and troubles behind a proxy.
PASSING = frozenset([408, 429, 502, 503, 504])

# What some of them say in the language of the system, for clients that know no HTTP.
CODES = {403: errno.EPERM, 416: errno.EINVAL, 504: errno.ETIMEDOUT, 507: errno.ENOSPC}

CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
UNSATISFIED_RANGE = re.compile(r"bytes \*/[0-9]{1,18}")
PARTIAL_CONTENT = re.compile(r"Expected ([0-9]{1,18}) bytes, got only ([0-9]{1,18})")
CHECKSUM = re.compile(r"[0-9a-f]+")


def holds_range(reply: Reply, offset: int, length: int) -> bool:
    """Return True if the reply holds this range, and nothing else. A server that does not tell sends what was asked."""
    default = f"bytes {offset}-{offset + length - 1}/*"
    match = CONTENT_RANGE.fullmatch(reply.headers.get("content-range", default))
    return reply.length == length and match is not None and int(match[1]) == offset


def read_object(reply: Reply) -> Mapping[str, Any]:
    """Return the JSON object that the body is, an empty one if it is not one."""
    try:
        value = json.loads(reply.read(JSON_LIMIT))
    except (ValueError, RecursionError):  # Arrays within arrays within arrays.
        return {}
    return value if isinstance(value, dict) else {}


def read_checksum(reply: Reply, block_size: int) -> str:
    """Return the checksum over blocks of this size that the body tells. Raises errors.StorageError."""
    answer = read_object(reply)
    checksum = answer.get("checksum")
    if not isinstance(checksum, str) or not CHECKSUM.fullmatch(checksum) or answer.get("block_size") != block_size:
        raise errors.StorageError("compute the checksum", "the image server answered with no checksum")
    return checksum


def read_stored(reply: Reply, length: int) -> int:
    """Return how much of a body of `length` bytes the server says to have stored when it was cut; 0 if it does not."""
    match = PARTIAL_CONTENT.fullmatch(reply.read(TEXT_LIMIT).decode("utf-8", "replace").strip())
    if reply.status != 400 or match is None or int(match[1]) != length:
        return 0
    return int(match[2])


def read_refusal(reply: Reply, operation: str, secret: str) -> errors.StorageError:
    """Return the error for a reply that was not expected: it quotes the origin, but for the secret."""
    if reply.status < 400:
        return errors.StorageError(operation, f"the image server answered with the unexpected status {reply.status}")
    text = errors.conceal(reply.read(TEXT_LIMIT).decode("utf-8", "replace"), secret, "(ticket)")
    # It may reach a terminal, or a log.
    reason = errors.printable(text) or f"The image server answered with status {reply.status}"
    unsatisfied = UNSATISFIED_RANGE.fullmatch(reply.headers.get("content-range", ""))
    content_range = unsatisfied[0] if unsatisfied else None
    code = CODES.get(reply.status)
    return errors.OriginError(operation, reason, code, status=reply.status, content_range=content_range)


def is_passing(error: BaseException) -> bool:
    """May the same request succeed a little later?"""
    if isinstance(error, errors.OriginError):
        return error.status in PASSING
    # A server that is not trusted now will not be trusted then.
    is_lost = isinstance(error, (errors.BackendUnavailable, errors.BackendTimeout))
    return is_lost and not isinstance(error, errors.BackendUntrusted)
