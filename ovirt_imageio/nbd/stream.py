"""The connection to an NBD server as a stream of bytes: send all of it, receive exactly so much, in time or not at all.

Knows sockets and TLS; knows nothing of the protocol.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Optional, Union

from ovirt_imageio.nbd.errors import ConnectionDead, Disconnected, TimedOut
from ovirt_imageio.timeouts import is_timeout, set_timeout
from ovirt_imageio.tls_socket import TLSSocket

__all__ = ["Stream"]

# Several requests fit into the socket while the server works on the one before: on a Unix socket that makes writes
# half as fast again. Systems that allow less use what they allow.
BUFFER_SIZE = 4 * 1024 * 1024

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
            tls.handshake()
            self._tls = tls

    def send(self, header: Buffer, payload: Optional[memoryview] = None) -> None:
        """Send a header and its payload, together where possible."""
        with self.mapped_errors("take a request"):
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
        with self.mapped_errors("take a request"):
            self._socket.sendall(header, socket.MSG_MORE)

    def receive(self, view: memoryview) -> None:
        """Fill all of view."""
        with self.mapped_errors("answer"):
            if self._is_tcp:
                # qemu holds its second small reply back until the first one is acknowledged, which the kernel would
                # do after 40 ms, to save a packet. It forgets this now and then.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            while view:
                count = self._receive_some(view)
                if count == 0:
                    raise Disconnected("the NBD server closed the connection")
                view = view[count:]

    def is_ready(self) -> bool:
        """Return True if receive() has something to begin with."""
        if self._tls is not None and self._tls.pending():
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _receive_some(self, view: memoryview) -> int:
        if self._tls is not None:
            return self._tls.recv_into(view)
        # The kernel gathers all that we want before it wakes us.
        return self._socket.recv_into(view, 0, socket.MSG_WAITALL)

    @contextlib.contextmanager
    def mapped_errors(self, what: str) -> Iterator[None]:
        """Turn errors of the system into ours."""
        try:
            yield
        except ConnectionDead:
            raise
        except OSError as e:
            if is_timeout(e):
                raise TimedOut(f"the NBD server did not {what} within {self._timeout:g} seconds") from e
            raise Disconnected(f"the NBD server did not {what}: {e.strerror or e}") from e

    def interrupt(self) -> None:
        """Make whatever waits for the server fail now. Threads: any."""
        with self._lock, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        with self._lock:
            self._socket.close()
