"""The bytes of one client, in and out: over TCP, a Unix socket or TLS, with what was received ahead of its use.

A time-out bounds the wait for progress, never the time of a large buffer: who is slow but steady is served.

Knows sockets; knows nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import socket as sockets
import ssl
import threading
import time
from collections.abc import Sequence
from typing import Union

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone, Refusal

__all__ = ["Stream", "Timeout"]

Data = Union[bytes, bytearray, memoryview]

# Python 3.9 has one time-out error for sockets, and another one for everything else.
Timeout = sockets.timeout

# The first byte of every TLS connection: a handshake record.
HANDSHAKE = b"\x16"

# Zero would mean not to wait at all.
SHORTEST = 0.001

# A TLS record, and more than any usual head.
RECEIVE = 16 * 1024

# OpenSSL writes all it is given or nothing, under one time-out; so much of it every minute is still called progress.
TLS_PIECE = 128 * 1024

# Up to here one copy and one record are cheaper than two writes.
JOIN_LIMIT = 64 * 1024

# What is read at once only to be dropped.
DISCARD = 64 * 1024


class Stream:
    """The socket of one client. `timeout` is the seconds to wait for progress.

    Threads: one at a time, but for `abort` and `is_aborted`, any.
    """

    __slots__ = ("_lock", "_sock", "_timeout", "ahead", "is_aborted", "is_ended", "is_tls")

    def __init__(self, sock: sockets.socket, timeout: float) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._timeout = timeout
        sock.settimeout(timeout)
        self.is_tls = isinstance(sock, ssl.SSLSocket)
        # Received, but not asked for yet.
        self.ahead = b""
        # True if the client will send nothing more.
        self.is_ended = False
        self.is_aborted = False

    @property
    def socket(self) -> sockets.socket:
        """The socket itself; its timeout is the one that was set here."""
        return self._sock

    @property
    def timeout(self) -> float:
        """Seconds to wait for progress."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._timeout = seconds
        self._sock.settimeout(seconds)

    def secure(self, context: ssl.SSLContext, timeout: float) -> None:
        """Do the TLS handshake, within the time-out for all of it.

        Raises Refusal if the client speaks plain HTTP, ClientGone, OperationCanceled.
        """
        deadline = time.monotonic() + timeout
        try:
            self._sock.settimeout(timeout)
            first = self._sock.recv(1, sockets.MSG_PEEK)
            if first and first != HANDSHAKE:
                raise Refusal(400, "This port speaks HTTPS only: use https:// in the URL", close=True)
            with self._lock:
                sock = context.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
                self._sock = sock
            self.is_tls = True
            # The time-out of a handshake is one for all its steps.
            sock.settimeout(max(deadline - time.monotonic(), SHORTEST))
            sock.do_handshake()
            sock.settimeout(self._timeout)
        except Timeout:
            self.is_ended = True
            raise ClientGone(f"its TLS handshake took longer than {timeout:g} seconds") from None
        except OSError as error:
            if self.is_aborted:
                raise errors.OperationCanceled() from None
            self.is_ended = True
            raise ClientGone(f"its TLS handshake failed: {describe(error)}") from None

    def receive(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises Timeout, ClientGone, OperationCanceled."""
        data = self.ahead
        if data:
            self.ahead = b""
            return data
        try:
            data = self._sock.recv(RECEIVE)
        except Timeout:
            raise
        except OSError as error:
            raise self._failure(error) from None
        if not data:
            self._note_end()
        return data

    def readinto(self, view: memoryview) -> int:
        """Read what there is, at least one byte; return how many, 0 at the end. Raises as receive()."""
        if self.ahead:
            count = min(len(view), len(self.ahead))
            view[:count] = self.ahead[:count]
            self.ahead = self.ahead[count:]
            return count
        try:
            count = self._sock.recv_into(view)
        except Timeout:
            raise
        except OSError as error:
            raise self._failure(error) from None
        if not count and len(view):
            self._note_end()
        return count

    def readline(self, limit: int) -> bytes:
        """Return the next line without its end; cut off when longer than limit or the client ended.

        Raises as receive().
        """
        data = self.receive()
        while True:
            end = data.find(b"\r\n")
            if end >= 0:
                self.ahead = data[end + 2 :]
                return data[:end]
            if len(data) > limit:
                return data
            more = self.receive()
            if not more:
                return data
            data += more

    def send(self, data: Data) -> None:
        """Send all of it. Raises ClientGone, OperationCanceled."""
        try:
            count = self._send_some(data)
            if count < len(data):
                view = memoryview(data)
                while count < len(view):
                    count += self._send_some(view[count:])
        except OSError as error:
            raise self._failure(error) from None

    def send_parts(self, parts: Sequence[Data]) -> None:
        """Send them one after the other, in one write if possible. Raises as send()."""
        size = sum(map(len, parts))
        if size <= JOIN_LIMIT:
            self.send(b"".join(parts))
        elif self.is_tls:
            for part in parts:
                self.send(part)
        else:
            self._send_message(parts, size)

    def send_ahead(self, data: bytes) -> None:
        """Send bytes that more will follow at once, put into the plain socket by somebody else. Raises as send()."""
        try:
            count = self._sock.send(data, sockets.MSG_MORE)
        except OSError as error:
            raise self._failure(error) from None
        if count < len(data):
            self.send(data[count:])

    def _send_some(self, data: Data) -> int:
        if self.is_tls and len(data) > TLS_PIECE:
            data = memoryview(data)[:TLS_PIECE]
        return self._sock.send(data)

    def _send_message(self, parts: Sequence[Data], size: int) -> None:
        """Send parts with one system call, what that leaves with more."""
        try:
            done = self._sock.sendmsg(parts)
        except OSError as error:
            raise self._failure(error) from None
        if done == size:
            return
        for part in parts:
            if done < len(part):
                self.send(memoryview(part)[done:])
            done = max(0, done - len(part))

    def _note_end(self) -> None:
        self.is_ended = True
        if self.is_aborted:
            raise errors.OperationCanceled()

    def _failure(self, error: OSError) -> errors.Error:
        """Return the error that tells what happened to the client."""
        self.is_ended = True
        if self.is_aborted:
            return errors.OperationCanceled()
        if isinstance(error, Timeout):
            return ClientGone(f"it took nothing for {self._timeout:g} seconds")
        return ClientGone(describe(error))

    def abort(self) -> None:
        """Make whatever blocks here return at once, in both directions. Threads: any."""
        with self._lock:
            self.is_aborted = True
            shut_down(self._sock, sockets.SHUT_RDWR)

    def has_more(self) -> bool:
        """Return True if the client sent more than was asked for; only good before linger() or close()."""
        if self.ahead or self.is_aborted or self.is_ended:
            return bool(self.ahead)
        try:
            self._sock.settimeout(0)
            return bool(sockets.socket.recv(self._sock, 1, sockets.MSG_PEEK))
        except OSError:
            return False

    def linger(self, seconds: float, limit: int) -> None:
        """End our side, then drop what the client still sends, so that it gets to read our last words.

        Closing a socket that has unread bytes resets the connection, and the peer's system drops what we sent. Over
        TLS the raw records are dropped: nothing needs to be decrypted.
        """
        if self.is_aborted or self.is_ended:
            return
        self.say_goodbye()
        deadline = time.monotonic() + seconds
        sink = bytearray(DISCARD)
        while limit > 0:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                self._sock.settimeout(left)
                count = sockets.socket.recv_into(self._sock, sink)
            except OSError:
                return
            if not count:
                return
            limit -= count

    def say_goodbye(self) -> None:
        """Tell the client that this was all: over TLS it can tell that from a connection that was cut."""
        if self.is_aborted or self.is_ended:
            return
        if isinstance(self._sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                # Sends close_notify; waits for the one of the peer no longer than not at all.
                self._sock.settimeout(0)
                self._sock.unwrap()
        shut_down(self._sock, sockets.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            self._sock.close()


def describe(error: OSError) -> str:
    """Return what happened, without the noise of OpenSSL."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or "the connection was closed"


def shut_down(sock: sockets.socket, how: int) -> None:
    """Shut down the connection below TLS: SSLSocket.shutdown would drop the TLS layer that another thread uses."""
    # It fails if the peer did it before us.
    with contextlib.suppress(OSError):
        sockets.socket.shutdown(sock, how)
