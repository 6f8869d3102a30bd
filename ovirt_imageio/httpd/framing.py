"""Where the body of a request ends (RFC 9112, section 6 and 7), read strictly: a server that guesses can be tricked.

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

import re
from typing import Optional

from ovirt_imageio.httpd.head import Head
from ovirt_imageio.httpd.refusal import Refusal

__all__ = ["CHUNK_LINE_LIMIT", "body_length", "expects_continue", "keeps_alive", "parse_chunk_size", "upgrades"]

# A chunk's size line with its extensions, and a trailer line, has at most this many bytes: clients do not need more.
CHUNK_LINE_LIMIT = 4096

# 19 digits are the largest file, 2**63 - 1 bytes, and a bit.
LENGTH = re.compile(r"[0-9]{1,19}")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


def body_length(head: Head) -> Optional[int]:
    """Return the length of the body, 0 without one, None if it comes in chunks. Raises Refusal."""
    coding = head.headers.get("transfer-encoding")
    length = head.headers.get("content-length")
    if coding is not None:
        if length is not None:
            raise Refusal(400, "A request has Content-Length or Transfer-Encoding, not both", close=True)
        if head.version < (1, 1):
            raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding", close=True)
        if coding.lower() != "chunked":
            raise Refusal(501, "The only Transfer-Encoding supported is chunked", close=True)
        return None
    if length is None:
        return 0
    if not LENGTH.fullmatch(length):
        # Repeated ones were joined by a comma.
        raise Refusal(400, "Content-Length is not one decimal number", close=True)
    return int(length)


def expects_continue(head: Head) -> bool:
    """Return True if the client waits for "100 Continue" before it sends the body."""
    expect = head.headers.get("expect")
    return expect is not None and expect.lower() == "100-continue" and head.version >= (1, 1)


def keeps_alive(head: Head) -> bool:
    """Return True if the client wants to use the connection again."""
    connection = head.headers.get("connection")
    if connection is None:
        return head.version >= (1, 1)
    options = [option.strip() for option in connection.lower().split(",")]
    if "close" in options:
        return False
    return head.version >= (1, 1) or "keep-alive" in options


def upgrades(head: Head) -> tuple[str, ...]:
    """Return the protocols, in lower case, that the client would rather speak on this connection (RFC 9110, 7.8).

    Those of a request with a body are ignored, as a server may: it would have to be read first.
    """
    wanted = head.headers.get("upgrade")
    options = (head.headers.get("connection") or "").lower().split(",")
    if wanted is None or head.version < (1, 1) or "upgrade" not in map(str.strip, options):
        return ()
    if head.headers.get("content-length", "0") != "0" or head.headers.get("transfer-encoding") is not None:
        return ()
    return tuple(protocol.strip().lower() for protocol in wanted.split(","))


def parse_chunk_size(line: bytes) -> int:
    """Return the size that a chunk's first line, without its end, announces. Raises Refusal."""
    match = CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise Refusal(400, "A chunk of the request body has a malformed size", close=True)
    return int(match.group(1), 16)
