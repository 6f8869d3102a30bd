"""A socket as it is: how long it may stand still is the kernel's business, so that one system call moves the bytes.

TLSSocket has the same methods, and stands on one of these. Knows sockets; knows nothing of what is said.
"""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Sequence
from typing import Callable, Optional, Union

from ovirt_imageio.net.eager import EagerSocket
from ovirt_imageio.net.timeouts import set_receive_timeout, set_send_timeout, set_timeout, unsent

__all__ = ["SMALL", "Data", "PlainSocket"]

Data = Union[bytes, bytearray, memoryview]

# Up to here bytes are cheaper copied than sent with one more call. For receiving: a whole request, and below what the
# allocator asks the system for each time.
SMALL = 64 * 1024


class PlainSocket:
    """A connected socket that blocks, for up to `timeout` seconds; None: for ever.

    Every method raises OSError, one that timeouts.is_timeout() knows when nothing moved in time, and may then be called
    again with the same arguments.

    Threads: one at a time.
    """

    # What encrypts.
    encryption = "none"

    __slots__ = ("_told_receive", "_told_send", "eager", "flags", "sock", "timeout")

    def __init__(self, sock: socket.socket, timeout: Optional[float]) -> None:
        self.sock = sock
        # It may change with each request. Telling the kernel costs a system call, so that is done when it matters.
        self.timeout = self._told_receive = self._told_send = timeout
        set_timeout(sock, timeout)
        # Receives what comes soon.
        self.eager = EagerSocket(sock)
        # What each call tells the kernel: 0, or MSG_DONTWAIT; then what would wait raises BlockingIOError instead.
        self.flags = 0

    def prepare(self) -> socket.socket:
        """Return the socket; it blocks for as long as the time-out says, also in the kernel."""
        self._prepare_receive()
        self._prepare_send()
        return self.sock

    def recv(self, size: int, is_eager: bool = True) -> bytes:
        """Return up to `size` bytes, at least one, b"" at the end; look before sleeping if `is_eager`."""
        if self.timeout != self._told_receive:
            self._prepare_receive()
        if is_eager and not self.flags:
            data = self.eager.recv(size)
            if data is not None:
                return data
        return self.sock.recv(size, self.flags)

    def recv_until(self, deadline: float, size: int) -> bytes:
        """Return what recv() returns, but wait no longer than to the deadline. Raises TimeoutError."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._prepare_receive(left if self.timeout is None else min(left, self.timeout))
        return self.sock.recv(size, self.flags)

    def recv_into(self, view: memoryview) -> int:
        """Read at least one byte into view, as many as are here; return how many, 0 at the end."""
        if self.timeout != self._told_receive:
            self._prepare_receive()
        return self.sock.recv_into(view, 0, self.flags)

    def fill(self, view: memoryview) -> int:
        """Read until view is full, as far as that goes with one call; return how much was read, 0 at the end."""
        if self.timeout != self._told_receive:
            self._prepare_receive()
        # The kernel waits for all that we want before it wakes us.
        return self.sock.recv_into(view, 0, socket.MSG_WAITALL)

    def send(self, data: Data) -> int:
        """Send some of data; return how much."""
        if self.timeout != self._told_send:
            self._prepare_send()
        if self.flags:
            return self.sock.send(data, self.flags)
        if len(data) <= SMALL:
            try:
                return self.sock.send(data)
            except BlockingIOError:
                pass  # A buffer without room for that is rare: the peer has one more time-out to show that it lives.
        return self._retry_slow(functools.partial(self.sock.send, data))

    def send_parts(self, parts: Sequence[Data]) -> int:
        """Send some of the parts, one after the other, with one system call; return how many bytes.

        For parts that are more than SMALL together.
        """
        if self.timeout != self._told_send:
            self._prepare_send()
        return self._retry_slow(functools.partial(self.sock.sendmsg, parts))

    def send_ahead(self, data: Data) -> int:
        """Send some of what more bytes will follow at once; return how much."""
        self._prepare_send()
        return self.sock.send(data, socket.MSG_MORE)

    def drop(self, view: memoryview) -> int:
        """Receive what is of no interest; return how much came, 0 at the end."""
        return self.sock.recv_into(view)

    def pending(self) -> int:
        """How many bytes were received and not read: none, they wait in the socket."""
        return 0

    def end(self) -> None:
        """Tell the peer that nothing more will come; reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self.sock.close()

    def _prepare_receive(self, seconds: Optional[float] = None) -> None:
        """Let the kernel know how long we wait, no longer than the time-out."""
        seconds = self.timeout if seconds is None else seconds
        if seconds != self._told_receive:
            set_receive_timeout(self.sock, seconds)
            self._told_receive = seconds

    def _prepare_send(self) -> None:
        if self.timeout != self._told_send:
            set_send_timeout(self.sock, self.timeout)
            self._told_send = self.timeout

    def _retry_slow(self, send: Callable[[], int]) -> int:
        """Send; a time-out in which the peer took some of what the kernel holds does not count."""
        before = unsent(self.sock)
        while True:
            try:
                return send()
            except BlockingIOError:
                left = unsent(self.sock)
                if left >= before:
                    raise
                before = left
