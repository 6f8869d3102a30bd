"""The bytes of one client, in and out, through TLS.

The socket never blocks; we wait for it ourselves. Then the time-out is one for each step of progress, where OpenSSL's
would be one for all of a large buffer, and what can be sent at once costs one system call, not two, and gives up the
interpreter's lock once, not twice.

Knows sockets and OpenSSL; knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import select
import socket as sockets
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Optional, TypeVar

from ovirt_imageio import errors, relay
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.stream import RECEIVE, Data, Stream, Timeout

__all__ = ["SecureStream"]

# The first byte of every TLS connection: a handshake record.
HANDSHAKE = b"\x16"

T = TypeVar("T")


class SecureStream(Stream):
    """The socket of one client that speaks TLS, after handshake(); before, it is in the clear.

    Threads: one at a time, but for `abort` and `is_aborted`, any.
    """

    __slots__ = ("_is_dry", "_readable", "_tls", "_writable")

    def __init__(self, sock: sockets.socket, timeout: float) -> None:
        super().__init__(sock, timeout)
        self._tls: Optional[ssl.SSLSocket] = None
        # True if nothing was left the last time that we looked: then waiting is cheaper than looking in vain.
        self._is_dry = True
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)

    def handshake(self, context: ssl.SSLContext, timeout: float) -> bool:
        """Do the TLS handshake, within the time-out for all of it; return False if the client left without a word.

        Raises Refusal if the client speaks plain HTTP, ClientGone, OperationCanceled.
        """
        deadline = time.monotonic() + timeout
        try:
            self._sock.settimeout(timeout)
            first = self._sock.recv(1, sockets.MSG_PEEK)
            if not first:
                self._note_end()
                return False
            if first != HANDSHAKE:
                raise Refusal(400, "This port speaks HTTPS only: use https:// in the URL", close=True)
            tls = self._wrap(context)
            self._retry(tls.do_handshake, deadline)
        except Timeout:
            self.is_ended = True
            raise ClientGone(f"its TLS handshake took longer than {timeout:g} seconds") from None
        except OSError as error:
            if self.is_aborted:
                raise errors.OperationCanceled() from None
            self.is_ended = True
            raise ClientGone(f"its TLS handshake failed: {describe(error)}") from None
        return True

    def _wrap(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        # Not while another thread aborts: the plain socket gives up its descriptor.
        with self._lock:
            tls = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
            tls.setblocking(False)
            self._sock = self._tls = tls
        self.is_tls = True
        return tls

    def say_goodbye(self) -> None:
        """Tell the client that this was all, so that it can tell that from a connection that was cut."""
        if self._tls is not None and not self.is_aborted and not self.is_ended:
            # Sends close_notify; nobody waits for that of the client.
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        super().say_goodbye()

    def _apply_timeout(self, seconds: float) -> None:
        if self._tls is None:
            super()._apply_timeout(seconds)

    def _receive(self) -> bytes:
        tls = self._tls
        if tls is None:
            return super()._receive()
        if not tls.pending():
            self._wait(self._readable)
        return self._retry(lambda: tls.recv(RECEIVE))

    def _receive_into(self, view: memoryview) -> int:
        tls = self._tls
        if tls is None:
            return super()._receive_into(view)
        if self._is_dry and not tls.pending():
            self._wait(self._readable)
        count = self._retry(lambda: tls.recv_into(view))
        # Records are small: take all that are here, so that waiting and the caller's work are paid for once.
        self._is_dry = False
        try:
            while 0 < count < len(view):
                more = tls.recv_into(view[count:])
                if not more:
                    break
                count += more
        except ssl.SSLWantReadError:
            self._is_dry = True
        except OSError:
            pass  # What came before counts; the next call will say it again.
        return count

    def _send_some(self, data: Data) -> int:
        tls = self._tls
        if tls is None:
            return super()._send_some(data)
        # OpenSSL takes all of it, in several steps if need be.
        return self._retry(lambda: tls.send(data))

    def _send_message(self, parts: Sequence[Data], size: int) -> None:
        for part in parts:
            self.send(part)

    def _retry(self, action: Callable[[], T], deadline: Optional[float] = None) -> T:
        """Do it as soon as OpenSSL can; each step of progress has its own time-out, unless there is a deadline."""
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                self._wait(self._readable, deadline)
            except ssl.SSLWantWriteError:
                self._wait_writable(deadline)

    def _wait_writable(self, deadline: Optional[float]) -> None:
        # The kernel wakes us when a third of its buffer is free, more than a slow client takes in one time-out.
        while True:
            before = relay.unsent(self._sock)
            try:
                return self._wait(self._writable, deadline)
            except Timeout:
                if deadline is not None or relay.unsent(self._sock) >= before:
                    raise

    def _wait(self, poll: select.poll, deadline: Optional[float] = None) -> None:
        seconds = self._timeout if deadline is None else max(0, deadline - time.monotonic())
        if not poll.poll(seconds * 1000):
            raise Timeout("timed out")


def describe(error: OSError) -> str:
    """Return what happened, without the noise of OpenSSL."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or "the connection was closed"
