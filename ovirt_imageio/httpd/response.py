"""The answer to a request: small ones in one write, large ones through a sink.

Knows nothing of routes and of what the answer means.
"""

from __future__ import annotations

import json
import time
from typing import Any, Optional

from ovirt_imageio.httpd import problem
from ovirt_imageio.httpd.refusal import Refusal, phrase_of
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.sink import BodySink, ChunkedSink, NoSink
from ovirt_imageio.httpd.stream import Stream
from ovirt_imageio.httpd.upgrade import Upgraded
from ovirt_imageio.version import __version__

__all__ = ["BINARY", "JSON", "TEXT", "Response", "http_date"]

BINARY = "application/octet-stream"
JSON = "application/json"
TEXT = "text/plain; charset=UTF-8"

# A client that is sent away for now is told for how long: in seconds, unless the handler knows better.
BUSY = (429, 503)
RETRY_AFTER = "5"

# A client is told where the time of its request went if that took this many seconds: for small writes, which take less,
# the header costs 4 % of their rate.
WORTH_TELLING = 0.001

SERVER = f"imageio/{__version__}"

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Status lines with the server header, by status: the part of a head that never changes.
openings: dict[int, str] = {}


class Response:
    """What we answer. A handler sets `headers`, then calls one of send*() or start().

    A handler that returns without either sends an empty 200. `close` True closes the connection after the response; it
    is always so when the body of the request was not read to its end.

    Threads: the connection's.
    """

    __slots__ = ("_request", "_sink", "_stream", "close", "headers", "status")

    def __init__(self, request: Request, stream: Stream) -> None:
        self._request = request
        self._stream = stream
        self._sink: Optional[BodySink] = None
        # The names are sent as they are: write them in lower case.
        self.headers: dict[str, str] = {}
        self.close = not request.keeps_alive
        # 0 until the response has begun.
        self.status = 0

    @property
    def is_started(self) -> bool:
        """True if it is too late to answer something else: the head has left."""
        return self.status != 0 and (self._sink is None or self._sink.is_started)

    @property
    def has_body(self) -> bool:
        """False if what a handler writes is dropped: a GET handler that answers HEAD need not read the disk."""
        return self._request.method != "HEAD"

    @property
    def is_complete(self) -> bool:
        """True if everything that was promised was sent, so that another response can follow."""
        return self.is_started and (self._sink is None or self._sink.is_complete)

    def send(self, status: int = 200, body: bytes = b"", content_type: str = BINARY) -> None:
        """Send a whole response; an empty body has no content type."""
        head = self._start(status, len(body), content_type if body else None)
        if not body or not self.has_body:
            self._stream.send(head)
        else:
            self._stream.send_parts([head, body])

    def send_text(self, text: str, status: int = 200) -> None:
        """Send one line of plain text."""
        self.send(status, f"{text}\n".encode(), TEXT)

    def send_refusal(self, refusal: Refusal) -> None:
        """Send the text of a refusal, or, to a client that asks for them, problem details."""
        if problem.is_wanted(self._request.headers.get("accept", "")):
            self.send(refusal.status, problem.describe(refusal), problem.CONTENT_TYPE)
        else:
            self.send_text(refusal.text, refusal.status)

    def send_json(self, value: Any, status: int = 200) -> None:
        """Send one JSON document, and a newline for readers at a terminal."""
        self.send(status, f"{json.dumps(value)}\n".encode(), JSON)

    def start(self, status: int = 200, length: Optional[int] = None, content_type: str = BINARY) -> BodySink:
        """Begin a response whose body follows through the sink that is returned.

        `length` None: a body in chunks, or to the end of the connection where the client is too old for them. The head
        leaves with the first bytes: a handler that raises before is answered with its error. One that raises later, or
        writes less than length, closes the connection, so that the client can tell.
        """
        if length is None and self.has_body:
            if self._request.version >= (1, 1):
                self.headers["transfer-encoding"] = "chunked"
                self._sink = ChunkedSink(self._stream, self._start(status, None, content_type))
                return self._sink
            self.close = True
        head = self._start(status, length, content_type)
        self._sink = BodySink(self._stream, head, length) if self.has_body else NoSink(self._stream, head)
        return self._sink

    def upgrade(self, protocol: str) -> Upgraded:
        """Switch to another protocol, which the client asked for; the connection closes when the handler returns."""
        assert protocol in self._request.upgrades
        assert not self.is_started
        self.status = 101
        self.close = True
        head = f"{opening(101)}{current_date()}\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n"
        self._stream.send(head.encode())
        return Upgraded(self._stream, self._request.connection)

    def finish(self) -> None:
        """Send what was not sent yet of a response that went well: the server calls it after the handler."""
        if not self.status:
            self.send()
        elif self._sink is not None:
            self._sink.finish()

    def _start(self, status: int, length: Optional[int], content_type: Optional[str]) -> bytes:
        """Return the head of this response, which replaces any that was begun and has not left yet."""
        assert not self.is_started
        self._sink = None
        request = self._request
        if not request.body.is_consumed:
            # What is left of it would be taken for the next request.
            self.close = True
        connection = ""
        if self.close:
            connection = "connection: close\r\n"
        elif request.version < (1, 1):
            connection = "connection: keep-alive\r\n"
        # No rule asks for it on 204, but two clients of ours do.
        content_length = "" if length is None else f"content-length: {length}\r\n"
        kind = "" if content_type is None or status in (204, 304) else f"content-type: {content_type}\r\n"
        if status in BUSY:
            self.headers.setdefault("retry-after", RETRY_AFTER)
        clock = request.connection.clock
        if clock.elapsed() >= WORTH_TELLING:
            timing = clock.since_mark()
            if len(timing) > 1:
                # Not only that the request is being answered. https://www.w3.org/TR/server-timing/
                self.headers["server-timing"] = ", ".join([f"{name};dur={took * 1000:.3f}" for name, took in timing])
        fields = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        count = len(self.headers)
        if fields.count("\n") > count or fields.count("\r") > count or "\0" in fields:
            # A value that ends its line, for one reader or another, is a bug of ours, or an attack on a client.
            raise ValueError("A response header has a line break")
        self.status = status
        return f"{opening(status)}{current_date()}\r\n{content_length}{kind}{fields}{connection}\r\n".encode()


def opening(status: int) -> str:
    """Return the beginning of a head, up to the date."""
    text = openings.get(status)
    if text is None:
        text = f"HTTP/1.1 {status} {phrase_of(status)}\r\nserver: {SERVER}\r\ndate: "
        openings[status] = text
    return text


def http_date(seconds: float) -> str:
    """Return a point in time as HTTP has it, in English whatever the locale is.

    >>> http_date(784111777)
    'Sun, 06 Nov 1994 08:49:37 GMT'
    """
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(seconds)
    return f"{DAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT"


# The second that we formatted last, and its text: one tuple, so that threads see both or neither.
latest_date = (0, "")


def current_date() -> str:
    """Return the current date, formatted once a second."""
    global latest_date
    now = int(time.time())
    second, text = latest_date
    if second != now:
        text = http_date(now)
        latest_date = (now, text)
    return text
