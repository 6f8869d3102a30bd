"""The bytes of one client, in and out, with what was received ahead of its use.

A time-out bounds the wait for progress, never the time of a large buffer: who is slow but steady is served. The kernel
keeps it, so that a small request costs one system call to receive and one to send.

Knows sockets; knows nothing of HTTP, and leaves TLS to secure.py.
"""

from __future__ import annotations

import functools
import socket as sockets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Union

from ovirt_imageio import errors
from ovirt_imageio.httpd.refusal import ClientGone
from ovirt_imageio.net.eager import EagerSocket
from ovirt_imageio.net.lifeline import shut_down
from ovirt_imageio.net.timeouts import is_timeout, set_receive_timeout, set_send_timeout, set_timeout, unsent

__all__ = ["RECEIVE", "Data", "Stream", "Timeout"]

Data = Union[bytes, bytearray, memoryview]

# Python 3.9 has one time-out error for sockets, and another one for everything else.
Timeout = sockets.timeout

# A TLS record, and more than any usual head.
RECEIVE = 16 * 1024

# Up to here one copy and one record are cheaper than two writes.
JOIN_LIMIT = 64 * 1024

# What is read at once only to be dropped.
DISCARD = 64 * 1024


class Stream:
    """The TCP or Unix socket of one client. `timeout` is the seconds to wait for progress.

    Threads: one at a time, but for `abort`, `is_aborted` and `activity`, any.
    """

    __slots__ = (
        *("_eager", "_lock", "_moved", "_receive_timeout", "_send_timeout", "_sock"),
        *("ahead", "is_aborted", "is_ended", "is_tls", "timeout"),
    )

    def __init__(self, sock: sockets.socket, timeout: float) -> None:
        self._sock = sock
        self._eager = EagerSocket(sock)
        self._lock = threading.Lock()
        # It may change with each request. Telling the kernel costs a system call, so that is done when it matters.
        self.timeout = self._receive_timeout = self._send_timeout = timeout
        set_timeout(sock, timeout)
        # True if the bytes on the socket are not ours: nobody else may touch them.
        self.is_tls = False
        # How many bytes the client gave and took.
        self._moved = 0
        # Received, but not asked for yet.
        self.ahead = b""
        # True if the client will send nothing more.
        self.is_ended = False
        self.is_aborted = False

    @property
    def socket(self) -> sockets.socket:
        """The socket itself; it blocks, for as long as the time-out says."""
        self._prepare_receive()
        self._prepare_send()
        return self._sock

    def receive(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises Timeout, ClientGone, OperationCanceled."""
        data = self.ahead
        if data:
            self.ahead = b""
            return data
        self._prepare_receive()
        try:
            data = self._receive()
        except OSError as error:
            raise self._receive_failure(error) from None
        if not data:
            self._note_end()
        self._moved += len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        """Read what there is, at least one byte; return how many, 0 at the end. Raises as receive()."""
        if self.ahead:
            count = min(len(view), len(self.ahead))
            view[:count] = self.ahead[:count]
            self.ahead = self.ahead[count:]
            return count
        self._prepare_receive()
        try:
            count = self._receive_into(view)
        except OSError as error:
            raise self._receive_failure(error) from None
        if not count and len(view):
            self._note_end()
        self._moved += count
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
            self._moved += count
            if count < len(data):
                view = memoryview(data)
                while count < len(view):
                    step = self._send_some(view[count:])
                    self._moved += step
                    count += step
        except OSError as error:
            raise self._failure(error) from None

    def send_parts(self, parts: Sequence[Data]) -> None:
        """Send them one after the other, in one write if possible. Raises as send()."""
        size = sum(map(len, parts))
        if size <= JOIN_LIMIT:
            self.send(b"".join(parts))
        else:
            self._send_message(parts, size)

    def send_ahead(self, data: bytes) -> None:
        """Send bytes that more will follow at once, put into the plain socket by somebody else. Raises as send()."""
        self._prepare_send()
        try:
            count = self._sock.send(data, sockets.MSG_MORE)
        except OSError as error:
            raise self._failure(error) from None
        if count < len(data):
            self.send(data[count:])

    def _prepare_receive(self) -> None:
        """Let the kernel know how long we wait."""
        if self.timeout != self._receive_timeout:
            set_receive_timeout(self._sock, self.timeout)
            self._receive_timeout = self.timeout

    def _prepare_send(self) -> None:
        if self.timeout != self._send_timeout:
            set_send_timeout(self._sock, self.timeout)
            self._send_timeout = self.timeout

    def _receive(self) -> bytes:
        data = self._eager.recv(RECEIVE)
        return self._sock.recv(RECEIVE) if data is None else data

    def _receive_into(self, view: memoryview) -> int:
        return self._sock.recv_into(view)

    def _send_some(self, data: Data) -> int:
        self._prepare_send()
        if len(data) <= JOIN_LIMIT:
            try:
                return self._sock.send(data)
            except BlockingIOError:
                pass  # A buffer without room for that is rare: the client has one more time-out to show that it lives.
        return self._retry_slow(functools.partial(self._sock.send, data))

    def _retry_slow(self, send: Callable[[], int]) -> int:
        """Send; a time-out in which the client took some of what the kernel holds does not count."""
        before = unsent(self._sock)
        while True:
            try:
                return send()
            except BlockingIOError:
                left = unsent(self._sock)
                if left >= before:
                    raise
                before = left

    def _send_message(self, parts: Sequence[Data], size: int) -> None:
        """Send parts with one system call, what that leaves with more."""
        self._prepare_send()
        try:
            done = self._retry_slow(functools.partial(self._sock.sendmsg, parts))
        except OSError as error:
            raise self._failure(error) from None
        self._moved += done
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

    def _receive_failure(self, error: OSError) -> Exception:
        """Return what tells that nothing came in time, or what happened to the client."""
        return Timeout("timed out") if is_timeout(error) and not self.is_aborted else self._failure(error)

    def _failure(self, error: OSError) -> errors.Error:
        """Return the error that tells what happened to the client."""
        self.is_ended = True
        if self.is_aborted:
            return errors.OperationCanceled()
        if is_timeout(error):
            return ClientGone(f"it took nothing for {self.timeout:g} seconds")
        return ClientGone(error.strerror or str(error))

    def note_moved(self, count: int) -> None:
        """Note bytes that somebody else moved through the socket."""
        self._moved += count

    def activity(self) -> int:
        """Return a number that changes when the client gives or takes something. Threads: any."""
        with self._lock:
            return self._moved - unsent(self._sock)

    def abort(self) -> None:
        """Make whatever blocks here return at once, in both directions. Threads: any."""
        with self._lock:
            self.is_aborted = True
            shut_down(self._sock)

    def has_more(self) -> bool:
        """Return True if the client sent more than was asked for; only good before linger() or close()."""
        if self.ahead or self.is_aborted or self.is_ended:
            return bool(self.ahead)
        try:
            return bool(self._sock.recv(1, sockets.MSG_PEEK | sockets.MSG_DONTWAIT))
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
                set_receive_timeout(self._sock, left)
                count = self._sock.recv_into(sink)
            except OSError:
                return
            if not count:
                return
            limit -= count

    def say_goodbye(self) -> None:
        """Tell the client that this was all."""
        if self.is_aborted or self.is_ended:
            return
        shut_down(self._sock, sockets.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            self._sock.close()
