"""One client: its requests, one after the other, until it or we close.

    wait ──> head ──> request ──> application ──> response ──┐
      ^                                                      │
      └──────────────── keep alive ──────────────────────────┘

Knows nothing of routes, and of how connections are accepted. What a handler may know of it is in peer.py.
"""

from __future__ import annotations

import logging
import time
from typing import Callable, Optional

from ovirt_imageio import errors
from ovirt_imageio.httpd import head
from ovirt_imageio.httpd.body import Body, open_body
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.peer import Peer
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.request import Request
from ovirt_imageio.httpd.response import Response
from ovirt_imageio.httpd.stream import Stream, Timeout, has_more, linger, say_goodbye
from ovirt_imageio.net import eager

__all__ = ["Connection", "Handler"]

log = logging.getLogger("http")

# Answers a request; raises ClientGone or errors.OperationCanceled if that is in vain.
Handler = Callable[[Request, Response], None]


class Connection(Peer):
    """One client, whose requests it answers.

    Threads: those of Peer; everything else is the connection's own.
    """

    def __init__(self, stream: Stream, client: str, limits: Limits) -> None:
        super().__init__(stream, client)
        # True if the client may be sending what is not going to be read.
        self._is_out_of_step = False
        self._limits = limits
        # What came of a head that did not come at once.
        self._begun = bytearray()

    def serve(self, handler: Handler) -> None:
        """Answer requests until either side closes."""
        try:
            self._serve_all(handler)
        except (ClientGone, errors.OperationCanceled) as error:
            log.debug("%s connection=%s client=%s", error, self.id, self.client)
        else:
            self._part()

    def refuse(self, refusal: Refusal, level: int = logging.WARNING) -> None:
        """Answer no request, but say why."""
        log.log(level, "%s connection=%s client=%s", refusal, self.id, self.client)
        try:
            self._answer_refusal(refusal)
        except (ClientGone, errors.OperationCanceled) as error:
            log.debug("%s connection=%s client=%s", error, self.id, self.client)
        else:
            self._part()

    def close(self) -> None:
        """Close the connection, then make the calls that were asked for."""
        self._stream.close()
        self.call_closers()

    def _part(self) -> None:
        """End the conversation so that the client gets to read our last words."""
        if self._is_out_of_step or has_more(self._stream):
            # That may take a while; a disk must not stay open for it.
            self.call_closers()
            linger(self._stream, self._limits.linger_timeout, self._limits.linger_bytes)
        else:
            say_goodbye(self._stream)

    def _serve_all(self, handler: Handler) -> None:
        try:
            while (self.is_new or not self.is_stopping) and self._serve_one(handler):
                # First this, then the question: a thread that stops us sets its flag, then looks whether we are busy.
                self.is_busy = False
                eager.end_work()
        finally:
            eager.end_work()

    def _serve_one(self, handler: Handler) -> bool:
        """Answer one request; return True if another one may follow."""
        data = None
        headers = head.Headers()
        try:
            data = self._read_head()
            if data is None:
                return False
            parsed = head.parse(data)
            headers = parsed.headers
            request = Request(parsed, open_body(parsed, self._stream), self)
        except Refusal as refusal:
            log.warning("%s connection=%s client=%s", refusal, self.id, self.client)
            self._answer_refusal(refusal, head.method_of(data or self._begun), headers)
            return False
        response = Response(request, self._stream)
        if self.is_stopping or self._stream.is_worn:
            response.close = True
        self._waits_since = None
        self.traceparent = request.traceparent
        handler(request, response)
        self._waits_since = time.monotonic()
        self._is_out_of_step = not request.body.is_consumed
        return response.is_complete and not response.close

    def _answer_refusal(self, refusal: Refusal, method: str = "", headers: Optional[head.Headers] = None) -> None:
        """Answer what could not be parsed; a HEAD request gets no body, whatever else is wrong with it."""
        self._is_out_of_step = True
        nothing = head.Head(method, "/", (1, 1), headers or head.Headers())
        response = Response(Request(nothing, Body(self._stream, 0), self), self._stream)
        response.close = True
        response.headers.update(refusal.headers)
        response.send_refusal(refusal)

    def _read_head(self) -> Optional[bytes]:
        """Return what comes before the empty line; None if the client has nothing more to ask, or takes too long."""
        data = self._wait()
        if not data:
            return None
        self.is_busy = True
        self.is_new = False
        self.clock.mark()
        eager.begin_work()
        # Most often all of it is here at once.
        end = data.find(head.END)
        if end > 0 and data[0] > 0x20:
            self._stream.ahead = data[end + len(head.END) :]
            return data[:end]
        return self._gather_head(data)

    def _gather_head(self, data: bytes) -> Optional[bytes]:
        """Read on until the head is complete, within the time for all of it; None if the client goes away."""
        deadline = time.monotonic() + self._limits.header_timeout
        timeout = self._stream.timeout
        buffer = self._begun = bytearray(data)
        head.skip_empty_lines(buffer)
        searched = 0
        try:
            while True:
                end = buffer.find(head.END, searched)
                if end >= 0:
                    self._stream.ahead = bytes(buffer[end + len(head.END) :])
                    return bytes(buffer[:end])
                if buffer:
                    head.check_prefix(buffer)
                searched = max(0, len(buffer) - len(head.END) + 1)
                more = self._receive_until(deadline)
                if not more:
                    return None
                buffer += more
                if not searched:
                    head.skip_empty_lines(buffer)
        finally:
            self._stream.timeout = timeout

    def _receive_until(self, deadline: float) -> bytes:
        """Return the next bytes. Raises Refusal when it is too late."""
        left = deadline - time.monotonic()
        if left > 0:
            self._stream.timeout = left
            try:
                return self._stream.receive()
            except Timeout:
                pass
        limit = self._limits.header_timeout
        raise Refusal(408, f"The request did not arrive within {limit:g} seconds", close=True)

    def _wait(self) -> bytes:
        """Return the first bytes of a request; none if the client closed, or was idle for too long."""
        stream = self._stream
        # Asked and set for each request: the property of the stream would be one more call each time.
        wire = stream.wire
        timeout = wire.timeout
        is_longer = timeout is None or timeout > self._limits.idle_timeout
        if is_longer:
            wire.timeout = self._limits.idle_timeout
        try:
            while True:
                try:
                    return stream.receive()
                except Timeout:
                    if not self.is_needed():
                        log.debug("Closing an idle connection=%s client=%s", self.id, self.client)
                        return b""
        finally:
            if is_longer:
                wire.timeout = timeout
