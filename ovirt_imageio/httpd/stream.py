"""What a connection to a client has beside the stream: names for its failures, the TLS handshake, and a polite end.

Knows streams; knows nothing of HTTP.
"""

from __future__ import annotations

import socket as sockets
import ssl
import time

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.net.lifeline import shut_down
from ovirt_imageio.net.stream import Data, Stream, describe
from ovirt_imageio.net.timeouts import is_timeout, set_receive_timeout

__all__ = ["Data", "Stream", "Timeout", "handshake", "has_more", "linger", "open_stream", "say_goodbye"]

# Python 3.9 has one time-out error for sockets, and another one for everything else.
Timeout = sockets.timeout

# What is read at once only to be dropped.
DISCARD = 64 * 1024

# The first byte of every TLS connection: a handshake record.
HANDSHAKE = b"\x16"


class ClientFailures:
    """A client that sends nothing may only be late: Timeout. Else it is gone, or was cut off."""

    def late(self, is_sending: bool, seconds: float) -> Exception:
        """Return the error for a client that stands still."""
        return ClientGone(f"it took nothing for {seconds:g} seconds") if is_sending else Timeout("timed out")

    def broken(self, is_sending: bool, reason: str) -> Exception:
        """Return the error for a connection that ended."""
        return ClientGone(reason)

    def interrupted(self) -> Exception:
        """Return the error for a connection that we shut down."""
        return errors.OperationCanceled()


FAILURES = ClientFailures()


def open_stream(sock: sockets.socket, timeout: float) -> Stream:
    """Return the stream of a client; it raises Timeout, ClientGone, OperationCanceled."""
    return Stream(sock, timeout, FAILURES)


def handshake(stream: Stream, context: ssl.SSLContext, timeout: float) -> bool:
    """Do the TLS handshake, within the time-out for all of it; return False if the client left without a word.

    Raises Refusal if the client speaks plain HTTP, ClientGone, OperationCanceled.
    """
    deadline = time.monotonic() + timeout
    sock = stream.wire.sock
    try:
        set_receive_timeout(sock, timeout)
        first = sock.recv(1, sockets.MSG_PEEK)
        set_receive_timeout(sock, stream.timeout)
        if not first and not stream.is_interrupted:
            return False
        if first and first != HANDSHAKE:
            raise Refusal(400, "This port speaks HTTPS only: use https:// in the URL", close=True)
        stream.start_tls(context, deadline, server_side=True)
    except OSError as error:
        if stream.is_interrupted:
            raise errors.OperationCanceled() from None
        stream.is_ended = True
        if is_timeout(error):
            raise ClientGone(f"its TLS handshake took longer than {timeout:g} seconds") from None
        raise ClientGone(f"its TLS handshake failed: {describe(error)}") from None
    return True


def has_more(stream: Stream) -> bool:
    """Return True if the client sent more than was asked for; only good before linger() or close()."""
    if stream.pending() or stream.is_interrupted or stream.is_ended:
        return stream.pending() > 0
    try:
        return bool(stream.wire.sock.recv(1, sockets.MSG_PEEK | sockets.MSG_DONTWAIT))
    except OSError:
        return False


def linger(stream: Stream, seconds: float, limit: int) -> None:
    """End our side, then drop what the client still sends, so that it gets to read our last words.

    Closing a socket that has unread bytes resets the connection, and the peer's system drops what we sent. Over TLS the
    raw records are dropped: nothing needs to be decrypted, but by a kernel that does that anyway.
    """
    if stream.is_interrupted or stream.is_ended:
        return
    say_goodbye(stream)
    sock = stream.wire.sock
    deadline = time.monotonic() + seconds
    sink = memoryview(bytearray(DISCARD))
    while limit > 0:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        try:
            set_receive_timeout(sock, left)
            count = stream.drop(sink)
        except OSError:
            return
        if not count:
            return
        limit -= count


def say_goodbye(stream: Stream) -> None:
    """Tell the client that this was all, so that it can tell that from a connection that was cut."""
    if stream.is_interrupted or stream.is_ended:
        return
    if stream.is_tls:
        stream.end()
    shut_down(stream.wire.sock, sockets.SHUT_WR)
