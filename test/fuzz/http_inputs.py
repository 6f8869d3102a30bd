"""Requests that two readers could understand in two ways, and what becomes of them.

For each: the bytes, the statuses of our answers, and how many requests h11 finds in them.
"""

from __future__ import annotations

__all__ = ["INPUTS"]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"

INPUTS: dict[str, tuple[bytes, list[int], int]] = {
    # Both refuse.
    "two hosts": (GET + b"Host: b\r\n\r\n", [400], 0),
    "length with a sign": (PUT + b"Content-Length: +5\r\n\r\nhello", [400], 0),
    "different lengths": (PUT + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", [400], 0),
    "coding within a coding": (PUT + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", [501], 0),
    "blank before the colon": (PUT + b"Content-Length : 5\r\n\r\nhello", [400], 0),
    "NUL in a value": (PUT + b"a: \0\r\n\r\n", [400], 0),
    "size with 0x": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", [400], 0),
    "chunk longer than its size": (CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", [400], 0),
    "half an empty line": (b"\r" + GET + b"\r\n", [400], 0),
    "carriage return in a field": (PUT + b"a: b\rContent-Length: 5\r\n\r\nhello", [400], 0),
    "line feed behind a chunk": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", [400], 0),
    # h11 accepts, we refuse.
    "line feeds alone": (GET.replace(b"\r", b"") + b"\n", [400], 1),
    "line feed in a field": (PUT + b"a: b\nContent-Length: 5\r\n\r\nhello", [400], 1),
    "folded field": (PUT + b"a: b\r\n Content-Length: 5\r\n\r\n", [400], 1),
    "equal lengths": (PUT + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", [400], 1),
    "length and coding": (PUT + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400], 1),
    "coding of an old client": (CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", [400], 1),
    "control character in a value": (GET + b"a: \x01\r\n\r\n", [400], 1),
    "protocol in version 3": (GET.replace(b"1.1", b"3.0") + b"\r\n", [505], 1),
    # We accept, h11 refuses: what real clients do.
    "no host": (b"GET / HTTP/1.1\r\n\r\n", [200], 0),
    "empty line first": (b"\r\n" + GET + b"\r\n", [200], 0),
    "UTF-8 in a path": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", [200], 0),
    # Found by fuzzing that is guided by coverage.
    "another request in HTTP/1.0": (
        GET.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n\r\n" + GET + b"\r\n",
        [200, 200],
        1,
    ),
    "coding among the trailers": (CHUNKED + b"0\r\nTransfer-Encoding: a, b\r\n\r\n" + GET + b"\r\n", [200, 200], 0),
    "bad length among the trailers": (CHUNKED + b"0\r\nContent-Length: +5\r\n\r\n" + GET + b"\r\n", [200, 200], 0),
    "blank before an extension": (CHUNKED + b"5 ;x=y\r\nhello\r\n0\r\n\r\n", [200], 0),
    # Both accept.
    "blank behind a size": (CHUNKED + b"5 \r\nhello\r\n0 \r\n\r\n", [200], 1),
    "length among the trailers": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n" + GET + b"\r\n", [200, 200], 2),
    "length with zeroes": (PUT + b"Content-Length: 005\r\n\r\nhello" + GET + b"\r\n", [200, 200], 2),
    "size with zeroes": (CHUNKED + b"005;x\r\nhello\r\n000\r\n\r\n" + GET + b"\r\n", [200, 200], 2),
    "body of a GET": (GET + b"Content-Length: 5\r\n\r\nhello" + GET + b"\r\n", [200, 200], 2),
    "client that wants to close": (GET + b"Connection: x, CLOSE\r\n\r\n" + GET + b"\r\n", [200], 1),
}
