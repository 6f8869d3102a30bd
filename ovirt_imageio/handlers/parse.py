"""What requests carry, checked at the border: every function returns a good value or raises errors.InvalidValue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional, TypeVar, Union

from ovirt_imageio import errors
from ovirt_imageio.geometry import byteranges
from ovirt_imageio.geometry.blocks import MAX_SIZE
from ovirt_imageio.httpd.request import Request

__all__ = [
    "MAX_JSON",
    "boolean",
    "byte_range",
    "choice",
    "integer",
    "is_preflight",
    "json_object",
    "member",
    "natural",
    "ticket_id",
    "upload_length",
    "upload_range",
]

T = TypeVar("T")

# Far more than any ticket or zero request needs.
MAX_JSON = 1024 * 1024

REQUIRED: Any = object()


def ticket_id(text: str) -> str:
    """Return the id that the path names; it must not be empty."""
    if not text:
        raise errors.InvalidValue("ticket id", text, "an id in the path: /images/TICKET")
    return text


def is_preflight(request: Request) -> bool:
    """Return True if a browser only asks whether a page may send a request.

    It must hear yes even for a ticket that is gone: else the page could not read the refusal of the request itself.
    """
    asks = "origin" in request.headers and "access-control-request-method" in request.headers
    return asks and request.method == "OPTIONS"


def byte_range(request: Request) -> Optional[byteranges.ByteRange]:
    """Return the range that the Range header asks for, None if there is none."""
    text = request.headers.get("range")
    return None if text is None else byteranges.parse_range(text)


def upload_length(request: Request) -> Optional[int]:
    """Return the length of the body, None if only its end will tell (it is chunked)."""
    if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        raise errors.InvalidValue("Content-Length", None, "the length of the body, or a chunked body")
    return request.body.length


def upload_range(request: Request) -> tuple[int, Optional[int]]:
    """Return where the body belongs, and the length that the client promises, None if it does not.

    What a script means by a Range is not "write at 0".
    """
    if "range" in request.headers:
        raise errors.InvalidValue("Range", request.headers["range"], "Content-Range, to tell where an upload belongs")
    text = request.headers.get("content-range")
    if text is None:
        return 0, None
    offset, length = byteranges.parse_content_range(text)
    size = request.body.length
    if None not in (length, size) and length != size:
        raise errors.InvalidValue("Content-Range", text, f"the range of the body, which has {size} bytes")
    return offset, length


def choice(request: Request, key: str, values: Mapping[str, T], default: T) -> T:
    """Return what the query key stands for."""
    text = request.query.get(key)
    if text is None:
        return default
    if text not in values:
        raise errors.InvalidValue(key, text, f"one of {', '.join(sorted(values))}")
    return values[text]


def natural(request: Request, key: str, default: T) -> Union[int, T]:
    """Return the number, not negative, that the query key holds."""
    text = request.query.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MAX_SIZE):
        raise errors.InvalidValue(key, text, "a number that is not negative")
    return int(text)


def json_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body."""
    data = request.body.read(MAX_JSON)
    try:
        value = json.loads(data, object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as e:
        # Without the body: it may hold the id of a ticket.
        raise errors.InvalidValue("request body", f"{len(data)} bytes", f"a JSON object ({e})") from e
    if not isinstance(value, dict):
        raise errors.InvalidValue("request body", type(value).__name__, "a JSON object")
    return value


def without_duplicates(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object; of two with one name it is not known which one was meant."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("two members have the same name")
    return members


def member(message: Mapping[str, Any], key: str, values: Sequence[str]) -> str:
    """Return the value of key, which must be one of values."""
    value = message.get(key)
    if not isinstance(value, str) or value not in values:
        raise errors.InvalidValue(key, value, f"one of {', '.join(values)}")
    return value


def integer(message: Mapping[str, Any], key: str, default: int = REQUIRED) -> int:
    """Return the value of key, an integer that is not negative; True is not one."""
    value = message.get(key, default)
    if type(value) is not int or not 0 <= value <= MAX_SIZE:
        raise errors.InvalidValue(key, None if value is REQUIRED else value, "an integer that is not negative")
    return value


def boolean(message: Mapping[str, Any], key: str, default: bool) -> bool:
    """Return the value of key, true or false."""
    value = message.get(key, default)
    if not isinstance(value, bool):
        raise errors.InvalidValue(key, value, "true or false")
    return value
