"""The connection to an NBD server: send all of it, receive exactly as much as asked for, in time or not at all.

Knows streams; knows nothing of the protocol.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
import weakref
from collections.abc import Sequence
from typing import Optional, Union

from ovirt_imageio.nbd.errors import ConnectionDead, Disconnected, TimedOut
from ovirt_imageio.net.stream import Data, Stream, describe
from ovirt_imageio.net.timeouts import is_timeout
from ovirt_imageio.relay import Pipe

__all__ = ["GATHER", "ServerStream"]

# Several requests fit into the socket while the server works on the one before: on a Unix socket that makes writes 50 %
# faster. Systems that allow less use what they allow.
BUFFER_SIZE = 4 * 1024 * 1024

# Small replies are received at once, header and payload, and copied: cheaper than a system call for each part.
GATHER = 16 * 1024

# Over TLS parts are joined up to about this.
JOIN_LIMIT = 256 * 1024


class ServerStream:
    """A connected socket. Every failure is an errors.ConnectionDead: half a message may have been sent or received.

    Threads: one, but for `interrupt`, which any thread may call.
    """

    def __init__(self, connection: Union[socket.socket, Stream], timeout: float) -> None:
        """Take over a connected socket, or the stream of another protocol that ends here."""
        # By a proxy: two that hold each other would stay until the cyclic collector comes, with all that TLS holds.
        names = weakref.proxy(self)
        if isinstance(connection, Stream):
            self._stream = connection
            self._stream.failures = names
            self._stream.timeout = timeout
        else:
            self._stream = Stream(connection, timeout, names)
        sock = self._stream.wire.sock
        self._is_tcp = sock.family != socket.AF_UNIX
        for option in () if self._is_tcp else (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
        self._sock = sock
        self._timeout = timeout
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    @property
    def timeout(self) -> float:
        """How long the server may stand still, in seconds."""
        return self._timeout

    def set_timeout(self, seconds: float) -> None:
        """Let the server stand still for that long."""
        self._timeout = self._stream.timeout = seconds

    @property
    def is_plain(self) -> bool:
        """True if bytes are what they look like on the socket: then they may pass through a pipe."""
        return not self._stream.is_tls

    def start_tls(self, context: ssl.SSLContext, hostname: Optional[str]) -> None:
        """Speak TLS from now on."""
        try:
            self._stream.start_tls(context, time.monotonic() + self._timeout, server_hostname=hostname)
        except OSError as e:
            raise self.failure("start TLS", e) from e

    def send(self, header: Data, payload: Optional[memoryview] = None) -> None:
        """Send a header and its payload, together where possible."""
        if payload is None:
            self._stream.send(header)
        else:
            self._stream.send_parts((header, payload))

    def send_all(self, parts: Sequence[Data]) -> None:
        """Send many parts with few calls."""
        if not self._stream.is_tls:
            self._stream.send_parts(parts)
            return
        # They are copied into records anyway, and each call ends one.
        size, first = 0, 0
        for number, part in enumerate(parts):
            size += len(part)
            if size >= JOIN_LIMIT:
                self._stream.send(b"".join(parts[first : number + 1]))
                size, first = 0, number + 1
        if size:
            self._stream.send(b"".join(parts[first:]))

    def send_pipe(self, header: Data, pipe: Pipe) -> None:
        """Send a header and all that is in the pipe."""
        try:
            sock = self._stream.socket
            assert sock is not None, "over TLS the bytes have to be encrypted"
            self._stream.send_ahead(header)
            pipe.drain(sock, ignore)
        except OSError as e:
            raise self._stream.failure(e, is_sending=True) from e

    def gather(self) -> bytes:
        """Wait for something to come after a small request; return what is here, which can be received or dropped.

        It may be nothing: over TLS, where bytes are better decrypted to where they belong, and at the end.
        """
        stream = self._stream
        if not stream.ahead and not stream.is_tls:
            if self._is_tcp:
                self._begin_small(True)
            else:
                # See _await_reply(): that the server takes one small request wakes us once, and costs less than a poll.
                stream.ahead = stream.receive(GATHER)
        return stream.ahead

    def drop(self, count: int) -> None:
        """Drop some of what gather() returned."""
        self._stream.ahead = self._stream.ahead[count:]

    def receive(self, view: memoryview, gather: bool = False) -> None:
        """Fill all of view; with `gather`, take what follows, if it is here, so that it need not be fetched later."""
        stream = self._stream
        ahead, size = stream.ahead, len(view)
        if not ahead and 0 < size < GATHER and not stream.is_tls:
            self._begin_small(gather)
            ahead = stream.ahead
        if size <= len(ahead):
            # A part of a small reply, as most are: one call less for each is 4 % of a read of 4 KiB.
            view[:] = ahead[:size]
            stream.ahead = ahead[size:]
        elif stream.fill(view, is_patient=True) < size:
            raise closed()

    def receive_some(self, view: memoryview) -> int:
        """Receive at least one byte into view; return how many came."""
        stream = self._stream
        if not stream.ahead and not stream.is_tls and not self._is_tcp:
            try:
                self._await_reply()
            except OSError as e:
                raise stream.failure(e, is_sending=False) from e
        count = stream.readinto(view)
        if not count:
            raise closed()
        return count

    def receive_pipe(self, pipe: Pipe, limit: int) -> int:
        """Move what comes, up to `limit` bytes, into the empty pipe; return how many bytes that are."""
        try:
            sock = self._stream.socket
            assert sock is not None and not self._stream.ahead, "some bytes were received already"
            count = pipe.fill(sock, limit)
        except OSError as e:
            raise self._stream.failure(e, is_sending=False) from e
        if not count:
            raise closed()
        return count

    def _begin_small(self, gather: bool) -> None:
        """Wait for the plain socket to have something, and gather it."""
        stream = self._stream
        if gather and stream.look(GATHER):
            return
        try:
            self._await_reply()
        except OSError as e:
            raise stream.failure(e, is_sending=False) from e
        if gather:
            stream.ahead = stream.receive(GATHER, False)

    def _await_reply(self) -> None:
        """Wait for a reply to begin.

        A thread that receives on a Unix socket is woken for nothing when the other side takes a request, as there is
        room for another one; both pay for that. A thread that polls is not.
        """
        if self._is_tcp:
            # qemu holds its second small reply back until the first one is acknowledged, which the kernel would do
            # after 40 ms, to save a packet. It forgets this now and then.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        elif not self._readable.poll(self._timeout * 1000):
            raise TimeoutError

    def lend(self) -> Stream:
        """Return the stream of bytes, for a caller that speaks the protocol itself."""
        return self._stream

    def is_ready(self) -> bool:
        """Return True if receive() has something to begin with."""
        return self._stream.is_ready()

    def was_told(self) -> bool:
        """Return True if the server said something, or has left. Not known over TLS: there it may be nothing for us."""
        stream = self._stream
        return not stream.is_tls and (bool(stream.ahead) or bool(self._readable.poll(0)))

    def interrupt(self) -> None:
        """Make whatever waits for the server fail now. Threads: any."""
        self._stream.interrupt()

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self._stream.close()

    # What the failures are called.

    def failure(self, what: str, error: OSError) -> ConnectionDead:
        """Return our error for one of the system: the server did not do `what`."""
        if is_timeout(error):
            return late(what, self._timeout)
        return Disconnected(f"the NBD server did not {what}: {describe(error)}")

    def late(self, is_sending: bool, seconds: float) -> ConnectionDead:
        """Return the error for a server that stands still."""
        return late(WHAT[is_sending], seconds)

    def broken(self, is_sending: bool, reason: str) -> ConnectionDead:
        """Return the error for a connection that ended."""
        return Disconnected(f"the NBD server did not {WHAT[is_sending]}: {reason}")

    def interrupted(self) -> ConnectionDead:
        """Return the error for a connection that another thread ended."""
        return Disconnected("the connection to the NBD server was interrupted")


# What a server does when we receive, and when we send.
WHAT = {False: "answer", True: "take a request"}


def late(what: str, seconds: float) -> TimedOut:
    """Return the error for a server that did not do `what` in time."""
    return TimedOut(f"the NBD server did not {what} within {seconds:g} seconds")


def closed() -> Disconnected:
    """Return the error for a server that left."""
    return Disconnected("the NBD server closed the connection")


def ignore(count: int) -> None:
    """Progress that is not told: the server has not written it yet."""
