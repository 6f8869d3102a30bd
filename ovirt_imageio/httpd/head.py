"""From bytes to the head of a request: its method, target, version and header fields (RFC 9112).

Strict where two readers could disagree on where a request ends, tolerant elsewhere: no Host is needed, one or more
empty lines may come first, a target may be a whole URL. Any bytes are parsed or refused, and it does not matter in
which pieces they arrived.

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Union
from urllib.parse import parse_qsl, unquote

from ovirt_imageio.httpd.refusal import Refusal

__all__ = [
    "END",
    "HEAD_LIMIT",
    "Head",
    "Headers",
    "check_prefix",
    "method_of",
    "parse",
    "parse_fields",
    "skip_empty_lines",
    "split_query",
    "split_target",
]

# What ends a line, and a head.
LINE_END = b"\r\n"
END = b"\r\n\r\n"

# A request line has at most this many bytes, its line end included: as the 2.5 release, and the same everywhere below.
LINE_LIMIT = 4096
# A header line may have this many bytes...
FIELD_LIMIT = 65536
# ... and a request this many fields, minus one.
FIELDS_LIMIT = 100
# All of them together: one line of the longest kind and as much for the others. A connection without any right to be
# here cannot make us hold more.
HEAD_LIMIT = 128 * 1024

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rf"({TOKEN}) ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])")
OTHER_VERSION = re.compile(r".* HTTP/([0-9]+)(?:\.[0-9]+)?")
FIELD = re.compile(rf"({TOKEN}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
TOKEN_BYTES = frozenset(code for code in range(128) if re.fullmatch(TOKEN, chr(code)))

Buffer = Union[bytes, bytearray]


# The header fields of a request by their names, which are in lower case; repeated fields are joined by a comma.
Headers = dict[str, str]


class Head(NamedTuple):
    """What comes before the body."""

    method: str
    target: str
    version: tuple[int, int]
    headers: Headers


def skip_empty_lines(data: bytearray) -> None:
    """Drop the empty lines before a request: they are left over from a sloppy client's last body."""
    while data.startswith(LINE_END):
        del data[: len(LINE_END)]


def method_of(data: Buffer) -> str:
    """Return the method of a request that cannot be parsed, as far as that is known: "" if it is not."""
    return "HEAD" if data.startswith(b"HEAD ") else ""


def check_prefix(data: Buffer) -> None:
    """Raise Refusal as soon as the bytes that came so far, at least one, cannot become a good head.

    That a head is refused, and with which status, does not depend on how much of it had arrived.
    """
    if data[0] not in TOKEN_BYTES:
        if data == LINE_END[:1]:
            return  # It may become an empty line.
        raise Refusal(400, "This is not HTTP", close=True)
    line_end = data.find(b"\n", 0, LINE_LIMIT)
    if line_end < 0:
        if len(data) >= LINE_LIMIT:
            raise line_too_long()
    elif data[line_end - 1] != 0x0D:
        raise Refusal(400, "Lines of a request end in CR LF", close=True)
    # The end may have arrived in part.
    if len(data) > HEAD_LIMIT + len(END) - 1:
        raise head_too_large()


def parse(data: bytes) -> Head:
    """Parse everything before the empty line. Raises Refusal."""
    check_prefix(data)
    if len(data) > HEAD_LIMIT:
        raise head_too_large()
    line, *fields = data.decode("latin-1").split("\r\n")
    if len(line) + len("\r\n") > LINE_LIMIT:
        raise line_too_long()
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        raise bad_request_line(line)
    method, target, major, minor = match.groups()
    if major != "1":
        raise bad_request_line(line)
    return Head(method, target, (1, int(minor)), parse_fields(fields))


def parse_fields(lines: list[str]) -> Headers:
    """Return names and values, of a head or of trailers. Raises Refusal."""
    if len(lines) >= FIELDS_LIMIT:
        raise Refusal(431, f"The request has {FIELDS_LIMIT} header fields or more", close=True)
    fields: Headers = {}
    for line in lines:
        if len(line) > FIELD_LIMIT:
            raise Refusal(431, f"A header line is longer than {FIELD_LIMIT} bytes", close=True)
        match = FIELD.fullmatch(line)
        if match is None:
            # Also folded lines, and blanks before the colon: two readers may understand them in two ways.
            raise Refusal(400, "A header line is malformed", close=True)
        name, value = match.groups()
        name = name.lower()
        value = value.rstrip(" \t")
        if name == "host" and name in fields:
            raise Refusal(400, "The request has two Host fields", close=True)
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def split_target(target: str) -> tuple[str, str]:
    """Return the path, percent-decoded, and the query as it came. Raises Refusal.

    The path of a whole URL is what follows its host.
    """
    if target[0] != "/":
        match = ABSOLUTE.match(target)
        if match is not None:
            # Of two slashes one is dropped below.
            target = "/" + target[match.end() :]
    if target[:2] == "//":
        # Some clients join the URL of a server that ends in a slash and a path that begins with one.
        target = "/" + target.lstrip("/")
    path, _, query = target.partition("?")
    if not path.isascii():
        # Clients that do not escape send UTF-8.
        path = path.encode("latin-1").decode("utf-8", "replace")
    if "%" in path:
        path = unquote(path)
        if "\0" in path:
            raise Refusal(400, "The path has a NUL character")
    return path, query


@functools.lru_cache(maxsize=64)
def split_query(query: str) -> Mapping[str, str]:
    """Return the decoded fields of a query; the last one of a name wins, one without a value has an empty one."""
    return MappingProxyType(dict(parse_qsl(query, keep_blank_values=True)))


def bad_request_line(line: str) -> Refusal:
    """Return the right refusal for a request line that we cannot use."""
    match = OTHER_VERSION.fullmatch(line)
    if match is not None and int(match.group(1)[:4]) != 1:
        return Refusal(505, "This server speaks HTTP/1.1 and HTTP/1.0", close=True)
    return Refusal(400, "The request line is malformed: expected METHOD TARGET HTTP/1.1", close=True)


def line_too_long() -> Refusal:
    """Return the refusal of a request line that does not end."""
    return Refusal(414, f"The request line is longer than {LINE_LIMIT} bytes", close=True)


def head_too_large() -> Refusal:
    """Return the refusal of an endless head."""
    return Refusal(431, f"The request line and the header fields have more than {HEAD_LIMIT} bytes", close=True)
