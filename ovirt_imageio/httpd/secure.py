"""The bytes of one client, in and out, through TLS.

Knows sockets and OpenSSL; knows nothing of HTTP.
"""

from __future__ import annotations

import functools
import socket as sockets
import ssl
import time
from collections.abc import Sequence
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.stream import RECEIVE, Data, Stream
from ovirt_imageio.net.timeouts import is_timeout, set_timeout
from ovirt_imageio.net.tls_socket import TLSSocket

__all__ = ["SecureStream"]

# The first byte of every TLS connection: a handshake record.
HANDSHAKE = b"\x16"


class SecureStream(Stream):
    """The socket of one client that speaks TLS, after handshake(); before, it is in the clear.

    Threads: one at a time, but for `abort` and `is_aborted`, any.
    """

    __slots__ = ("_tls",)

    def __init__(self, sock: sockets.socket, timeout: float) -> None:
        super().__init__(sock, timeout)
        self._tls: Optional[TLSSocket] = None

    def handshake(self, context: ssl.SSLContext, timeout: float) -> bool:
        """Do the TLS handshake, within the time-out for all of it; return False if the client left without a word.

        Raises Refusal if the client speaks plain HTTP, ClientGone, OperationCanceled.
        """
        try:
            set_timeout(self._sock, timeout)
            first = self._sock.recv(1, sockets.MSG_PEEK)
            if not first:
                self._note_end()
                return False
            if first != HANDSHAKE:
                raise Refusal(400, "This port speaks HTTPS only: use https:// in the URL", close=True)
            tls = TLSSocket(self._sock, context, server_side=True, send=super()._send_some)
            tls.handshake(functools.partial(self._hurry, time.monotonic() + timeout))
        except OSError as error:
            if self.is_aborted:
                raise errors.OperationCanceled() from None
            self.is_ended = True
            if is_timeout(error):
                raise ClientGone(f"its TLS handshake took longer than {timeout:g} seconds") from None
            raise ClientGone(f"its TLS handshake failed: {describe(error)}") from None
        set_timeout(self._sock, self.timeout)
        self._tls = tls
        self.is_tls = True
        return True

    def _hurry(self, deadline: float) -> None:
        """Wait for the next bytes, but not beyond the deadline for all of them."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        set_timeout(self._sock, left)

    def say_goodbye(self) -> None:
        """Tell the client that this was all, so that it can tell that from a connection that was cut."""
        if self._tls is not None and not self.is_aborted and not self.is_ended:
            self._tls.end()
        super().say_goodbye()

    def has_more(self) -> bool:
        """Return True if the client sent more than was asked for; it may have been received and not decrypted yet."""
        return (self._tls is not None and self._tls.pending() > 0) or super().has_more()

    def _receive(self) -> bytes:
        return super()._receive() if self._tls is None else self._tls.recv(RECEIVE)

    def _receive_into(self, view: memoryview) -> int:
        return super()._receive_into(view) if self._tls is None else self._tls.recv_into(view)

    def _send_some(self, data: Data) -> int:
        return super()._send_some(data) if self._tls is None else self._tls.send(data)

    def _send_message(self, parts: Sequence[Data], size: int) -> None:
        for part in parts:
            self.send(part)


def describe(error: OSError) -> str:
    """Return what happened, without the noise of OpenSSL."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or "the connection was closed"
