"""The connection to an NBD server as a stream of bytes: send all of it, receive exactly so much, in time or not at all.

Knows sockets and TLS; knows nothing of the protocol.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from typing import Optional, Union

from ovirt_imageio.nbd.errors import ConnectionDead, Disconnected, TimedOut
from ovirt_imageio.net.eager import EagerSocket
from ovirt_imageio.net.timeouts import end_after, is_timeout, set_timeout
from ovirt_imageio.net.tls_socket import TLSSocket

__all__ = ["GATHER", "Stream"]

# Several requests fit into the socket while the server works on the one before: on a Unix socket that makes writes
# half as fast again. Systems that allow less use what they allow.
BUFFER_SIZE = 4 * 1024 * 1024

# Small replies are received at once, header and payload, and copied: cheaper than a system call for each part.
GATHER = 16 * 1024

NOTHING = memoryview(b"")

Buffer = Union[bytes, memoryview]


class Stream:
    """A connected socket. Every failure is an errors.ConnectionDead: half a message may have been sent or received.

    The socket blocks, with the kernel's own time-outs: then one system call moves a whole buffer, and what counts is
    that something moves.

    Threads: one, but for `interrupt`, which any thread may call.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._socket = sock
        self._tls: Optional[TLSSocket] = None
        # What was gathered and not asked for yet, and where that is.
        self._gathered = NOTHING
        self._buffer = NOTHING
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._eager = EagerSocket(sock)
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
        try:
            tls = TLSSocket(self._socket, context, server_hostname=hostname)
            tls.handshake(end_after(self._timeout))
        except OSError as e:
            raise self.failure("start TLS", e) from e
        self._tls = tls

    def send(self, header: Buffer, payload: Optional[memoryview] = None) -> None:
        """Send a header and its payload, together where possible."""
        try:
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
        except OSError as e:
            raise self.failure("take a request", e) from e

    def send_ahead(self, header: Buffer) -> None:
        """Send the header of what somebody else puts into the plain socket at once."""
        try:
            self._socket.sendall(header, socket.MSG_MORE)
        except OSError as e:
            raise self.failure("take a request", e) from e

    def receive(self, view: memoryview, gather: bool = False) -> None:
        """Fill all of view; with `gather`, take what follows, if it is here, so that it need not be fetched later."""
        gather = gather and self._tls is None
        while view:
            if self._gathered:
                view = view[self._take(view) :]
            elif gather and len(view) < GATHER:
                self._buffer = self._buffer or memoryview(bytearray(GATHER))
                self._gathered = self._buffer[: self._receive(self._buffer, is_small=True)]
            else:
                view = view[self._receive(view) :]

    def _take(self, view: memoryview) -> int:
        """Copy what was gathered into view, as much as fits; return how much."""
        gathered, count = self._gathered, len(view)
        if count < len(gathered):
            view[:] = gathered[:count]
            self._gathered = gathered[count:]
            return count
        view[: len(gathered)] = gathered
        self._gathered = NOTHING
        return len(gathered)

    def _receive(self, view: memoryview, is_small: bool = False) -> int:
        """Receive at least one byte, and not much more than that if what comes is small; return how many."""
        try:
            if self._tls is not None:
                count = self._tls.recv_into(view)
            elif is_small:
                count = self._receive_small(view)
            else:
                count = self._receive_large(view)
        except OSError as e:
            raise self.failure("answer", e) from e
        if count == 0:
            raise Disconnected("the NBD server closed the connection")
        return count

    def _receive_small(self, view: memoryview) -> int:
        count = self._eager.recv_into(view)
        if count is None:
            self._await_reply()
            count = self._socket.recv_into(view)
        return count

    def _receive_large(self, view: memoryview) -> int:
        if len(view) < GATHER:
            self._await_reply()
        # The kernel waits for all that we want before it wakes us.
        return self._socket.recv_into(view, 0, socket.MSG_WAITALL)

    def _await_reply(self) -> None:
        """Wait for a reply to begin.

        Who receives on a Unix socket is woken for nothing when the other side takes a request, as there is room for
        another one; both pay for that. Who polls is not.
        """
        if self._is_tcp:
            # qemu holds its second small reply back until the first one is acknowledged, which the kernel would do
            # after 40 ms, to save a packet. It forgets this now and then.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        elif not self._readable.poll(self._timeout * 1000):
            raise TimeoutError

    def is_ready(self) -> bool:
        """Return True if receive() has something to begin with."""
        if self._gathered or (self._tls is not None and self._tls.pending()):
            return True
        return bool(self._readable.poll(0))

    def failure(self, what: str, error: OSError) -> ConnectionDead:
        """Return our error for one of the system: the server did not do `what`."""
        if is_timeout(error):
            return TimedOut(f"the NBD server did not {what} within {self._timeout:g} seconds")
        return Disconnected(f"the NBD server did not {what}: {error.strerror or error}")

    def interrupt(self) -> None:
        """Make whatever waits for the server fail now. Threads: any."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        with self._lock:
            self._socket.close()
