"""The HTTP headers that speak of bytes in a disk: Range, Content-Range, If-Range and Content-Disposition.

Pure: text in, numbers out, and back. Knows neither connections nor disks.
"""

from __future__ import annotations

import functools
import re
import urllib.parse
from typing import NamedTuple, Optional

from ovirt_imageio import errors

__all__ = ["ByteRange", "content_disposition", "content_range", "parse_content_range", "parse_filename", "parse_range"]

# No disk has a size with more digits than this; a longer number is hostile.
MAX_DIGITS = 20

# RFC 9110, 14.1.2: first-last, first-, or -suffix. Only the lower-case unit, no blanks: what real clients send.
RANGE = re.compile(r"bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))", re.ASCII)

# RFC 9110, 14.4; the last byte and the total may be unknown.
NUMBER = rf"[0-9]{{1,{MAX_DIGITS}}}"
CONTENT_RANGE = re.compile(rf"bytes ({NUMBER})-({NUMBER}|\*)/({NUMBER}|\*)", re.ASCII)

# RFC 9110, 5.6.2: what may stand unquoted.
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# RFC 8187, 3.2.1: what may stand unescaped in an extended value.
EXTENDED_SAFE = "!#$&+-.^_`|~"


class ByteRange(NamedTuple):
    """What a Range header asks for: from `first` to `last`, or, when `first` is None, the `last` final bytes."""

    first: Optional[int]
    last: Optional[int]

    def resolve(self, available: int) -> tuple[int, int]:
        """Return offset and length of the range within `available` bytes; an end beyond them is clamped."""
        if self.first is None:
            length = min(self.last or 0, available)
            if length == 0:
                raise errors.RangeNotSatisfiable(available, self.last, available)
            return available - length, length
        if self.first >= available:
            raise errors.RangeNotSatisfiable(self.first, None, available)
        last = available - 1 if self.last is None else min(self.last, available - 1)
        return self.first, last - self.first + 1


def parse_range(text: str) -> ByteRange:
    """Parse the value of a Range header; raises errors.InvalidRange, also for several ranges."""
    match = RANGE.fullmatch(text)
    if match is None or len(text) > 2 * MAX_DIGITS + len("bytes=-"):
        raise errors.InvalidRange("Range", text, "bytes=FIRST-LAST, bytes=FIRST- or bytes=-LENGTH, and only one range")
    first, last, suffix = match.groups()
    if suffix is not None:
        return ByteRange(None, int(suffix))
    spec = ByteRange(int(first), int(last) if last else None)
    if spec.last is not None and spec.last < int(first):
        raise errors.InvalidRange("Range", text, "a last byte that does not come before the first")
    return spec


def parse_content_range(text: str) -> tuple[int, Optional[int]]:
    """Return the offset that the Content-Range of an upload names, and the length if it does."""
    match = CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise errors.InvalidValue("Content-Range", text, "bytes FIRST-LAST/TOTAL, where LAST and TOTAL may be *")
    first, last, total = match.groups()
    if last != "*" and int(last) < int(first):
        raise errors.InvalidValue("Content-Range", text, "a last byte that does not come before the first")
    if total != "*" and int(first if last == "*" else last) >= int(total):
        raise errors.InvalidValue("Content-Range", text, "a range that ends before the total")
    return int(first), None if last == "*" else int(last) - int(first) + 1


def content_range(offset: int, length: int, total: int) -> str:
    """Return the Content-Range of an answer that carries `length` bytes, at least one, at offset."""
    return f"bytes {offset}-{offset + length - 1}/{total}"


@functools.lru_cache(maxsize=64)
def content_disposition(filename: Optional[str]) -> str:
    """Return the Content-Disposition of a download, after RFC 6266.

    A name that is not a token is sent twice: quoted, as UTF-8, which every browser of the last decade understands, and
    in the extended notation, which the standard prefers. So is a name with a percent sign, which browsers decode in a
    token. Control characters, with which a name could forge headers, and folders are dropped; a backslash, which
    separates folders on some systems, becomes an underscore.
    """
    name = "".join(c for c in (filename or "") if c.isprintable()).rpartition("/")[2].replace("\\", "_")
    if not name:
        return "attachment"
    if TOKEN.fullmatch(name) and "%" not in name:
        return f"attachment; filename={name}"
    quoted = name.replace('"', "'")
    extended = urllib.parse.quote(name, safe=EXTENDED_SAFE, encoding="utf-8", errors="replace")
    return f"attachment; filename=\"{quoted}\"; filename*=UTF-8''{extended}"


def parse_filename(text: str) -> Optional[str]:
    """Return the file name of a Content-Disposition, None if it has none.

    Lenient: old servers write the name as it is, in UTF-8, with blanks and without quotes.
    """
    extended = re.search(r".*filename\*=UTF-8''([^;]*)", text, re.IGNORECASE)
    if extended:
        return urllib.parse.unquote(extended[1], errors="replace") or None
    plain = re.search(r'filename=(?:"([^"]*)"|(.*))', text, re.IGNORECASE)
    if not plain:
        return None
    return (plain[1] or plain[2] or "").strip() or None
