"""The connection to an NBD server as a stream of bytes: send all of it, receive exactly so much, in time or not at all.

Knows sockets and TLS; knows nothing of the protocol.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from types import TracebackType
from typing import Optional, Union

from ovirt_imageio.nbd.errors import ConnectionDead, Disconnected, TimedOut
from ovirt_imageio.timeouts import end_after, is_timeout, set_timeout
from ovirt_imageio.tls_socket import TLSSocket

__all__ = ["GATHER", "Stream"]

# Several requests fit into the socket while the server works on the one before: on a Unix socket that makes writes
# half as fast again. Systems that allow less use what they allow.
BUFFER_SIZE = 4 * 1024 * 1024

# Small replies are received at once, header and payload, and copied: cheaper than a system call for each part.
GATHER = 16 * 1024

Buffer = Union[bytes, memoryview]


class Stream:
    """A connected socket. Every failure is a errors.ConnectionDead: half a message may have been sent or received.

    The socket blocks, with the kernel's own time-outs: then one system call moves a whole buffer, and what counts is
    that something moves.

    Threads: one, but for `interrupt`, which any thread may call.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._socket = sock
        self._tls: Optional[TLSSocket] = None
        # What was gathered and not asked for yet, and where that is.
        self._gathered = memoryview(b"")
        self._buffer = memoryview(b"")
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        # Reused, as every message needs them.
        self._sending = self.mapped_errors("take a request")
        self._receiving = self.mapped_errors("answer")
        self._is_tcp = sock.family != socket.AF_UNIX
        # Held to close, and to shut down: so that a shutdown never hits the next owner of the descriptor.
        self._lock = threading.Lock()
        for option in () if self._is_tcp else (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
        self.set_timeout(timeout)

    @property
    def timeout(self) -> float:
        """How long the server may stand still, in seconds."""
        return self._timeout

    def set_timeout(self, seconds: float) -> None:
        """Let the server stand still for so long."""
        self._timeout = seconds
        set_timeout(self._socket, seconds)

    @property
    def socket(self) -> Optional[socket.socket]:
        """The socket, if bytes are what they look like there; None if they are encrypted."""
        return self._socket if self._tls is None else None

    def start_tls(self, context: ssl.SSLContext, hostname: Optional[str]) -> None:
        """Speak TLS from now on."""
        with self.mapped_errors("start TLS"):
            tls = TLSSocket(self._socket, context, server_hostname=hostname)
            tls.handshake(end_after(self._timeout))
            self._tls = tls

    def send(self, header: Buffer, payload: Optional[memoryview] = None) -> None:
        """Send a header and its payload, together where possible."""
        with self._sending:
            if self._tls is not None:
                self._tls.sendall(header)
                self._tls.sendall(payload or b"")
            elif payload is None:
                self._socket.sendall(header)
            else:
                sent = self._socket.sendmsg([header, payload])
                if sent < len(header):  # a signal came
                    self._socket.sendall(header[sent:])
                    sent = len(header)
                if sent < len(header) + len(payload):
                    self._socket.sendall(payload[sent - len(header) :])

    def send_ahead(self, header: Buffer) -> None:
        """Send the header of what somebody else puts into the plain socket at once."""
        with self._sending:
            self._socket.sendall(header, socket.MSG_MORE)

    def receive(self, view: memoryview, gather: bool = False) -> None:
        """Fill all of view; with `gather`, take what follows, if it is here, so that it need not be fetched later."""
        with self._receiving:
            while view:
                if self._gathered:
                    count = min(len(view), len(self._gathered))
                    view[:count] = self._gathered[:count]
                    self._gathered = self._gathered[count:]
                elif gather and self._tls is None and len(view) < GATHER:
                    self._gather()
                    continue
                else:
                    # The kernel waits for all that we want before it wakes us.
                    count = self._receive_some(view, socket.MSG_WAITALL)
                view = view[count:]

    def _gather(self) -> None:
        """Receive what is here."""
        self._buffer = self._buffer or memoryview(bytearray(GATHER))
        self._gathered = self._buffer[: self._receive_some(self._buffer)]

    def _receive_some(self, view: memoryview, flags: int = 0) -> int:
        """Receive at least one byte."""
        if self._is_tcp:
            # qemu holds its second small reply back until the first one is acknowledged, which the kernel would do
            # after 40 ms, to save a packet. It forgets this now and then.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        count = self._socket.recv_into(view, 0, flags) if self._tls is None else self._tls.recv_into(view)
        if count == 0:
            raise Disconnected("the NBD server closed the connection")
        return count

    def is_ready(self) -> bool:
        """Return True if receive() has something to begin with."""
        if self._gathered or (self._tls is not None and self._tls.pending()):
            return True
        return bool(self._readable.poll(0))

    def mapped_errors(self, what: str) -> MappedErrors:
        """Return what turns errors of the system into ours in a with block."""
        return MappedErrors(self, what)

    def interrupt(self) -> None:
        """Make whatever waits for the server fail now. Threads: any."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        with self._lock:
            self._socket.close()


class MappedErrors:
    """Turns errors of the system in a with block into ours, again and again."""

    __slots__ = ("_stream", "_what")

    def __init__(self, stream: Stream, what: str) -> None:
        self._stream = stream
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if not isinstance(error, OSError) or isinstance(error, ConnectionDead):
            return
        if is_timeout(error):
            seconds = self._stream.timeout
            raise TimedOut(f"the NBD server did not {self._what} within {seconds:g} seconds") from error
        raise Disconnected(f"the NBD server did not {self._what}: {error.strerror or error}") from error
