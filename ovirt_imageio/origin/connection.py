"""One connection to an HTTP server: bytes out, lines and bytes in, and every failure with a name.

Knows sockets; knows neither requests nor replies.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
import weakref
from collections.abc import Iterator
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.net.lifeline import shut_down
from ovirt_imageio.net.stream import RECEIVE, Data, Stream

__all__ = ["BUFFER_SIZE", "Data", "Lost", "Peer"]

# Heads and small bodies are received in steps of this size; a longer head is refused.
BUFFER_SIZE = 64 * 1024

# Reads from here on go straight to the caller's view; smaller ones would cost a system call each.
DIRECT_READ = 16 * 1024

# One look at what the server says for each step: it may refuse the rest.
SEND_STEP = 256 * 1024


# Seconds; what is shorter would be none at all for the kernel, and so for ever.
SHORTEST_WAIT = 0.001


class Lost(errors.BackendUnavailable):
    """The connection ended; `is_unheard` is True if nothing came since the request began."""

    is_unheard = False


class Peer:
    """The server at the other end of a socket, plain or with TLS.

    `operation` names what is going on, for the errors: errors.BackendTimeout, Lost, errors.BackendUntrusted if what
    came is not HTTP, and errors.OperationCanceled after `interrupt`.

    Threads: one at a time, but for `interrupt`.
    """

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        # By a proxy: two that hold each other would stay until the cyclic collector comes, with all that TLS holds.
        self.stream = Stream(sock, timeout, weakref.proxy(self))
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | select.POLLOUT)
        # Until when what is read must be there, if it must be: a byte now and then does not hold us.
        self._deadline: Optional[float] = None
        self._received_before = 0
        # The time-out while there is no deadline.
        self._patience: Optional[float] = timeout
        # What had come when the request began.
        self._received = 0
        self.operation = "connect"

    def start_tls(self, context: ssl.SSLContext, hostname: str, timeout: float) -> None:
        """Speak TLS from now on; the handshake may take `timeout` seconds. Raises OSError as it is."""
        self.stream.start_tls(context, time.monotonic() + timeout, server_hostname=hostname)

    @property
    def sink(self) -> Optional[socket.socket]:
        """The socket, if it takes the next bytes as they are: a plain one, or one whose kernel encrypts them."""
        return self.stream.sink

    @property
    def socket(self) -> Optional[socket.socket]:
        """The plain socket, if the next bytes to read are still in it; None over TLS."""
        return None if self.stream.ahead else self.stream.socket

    @property
    def is_same_host(self) -> bool:
        """True if both ends have the same address."""
        if self._sock.family == socket.AF_UNIX:
            return True
        try:
            return bool(self._sock.getsockname()[0] == self._sock.getpeername()[0])
        except OSError:  # It left already.
            return False

    def limit_unsent(self, limit: int) -> None:
        """Let sending wait while the kernel holds about so many bytes that TCP may not send yet."""
        if self._sock.family != socket.AF_UNIX:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit)

    def begin(self, operation: str, is_patient: bool = False) -> None:
        """Begin a request, whose answer may take as long as it likes if `is_patient`."""
        self.operation = operation
        self._received = self.stream.received
        self._deadline = None
        self.stream.timeout = None if is_patient else self._timeout

    @contextlib.contextmanager
    def in_time(self) -> Iterator[None]:
        """Let all that is read in the with block take one time-out; none if the request is patient."""
        self.hurry()
        try:
            yield
        finally:
            self.relax()

    def hurry(self) -> None:
        """Let all that is read until relax() take one time-out. After an error the connection is of no use anyway."""
        timeout = self._patience = self.stream.timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._received_before = self.stream.received

    def relax(self) -> None:
        """Let each read take one time-out again."""
        self._deadline = None
        self.stream.timeout = self._patience

    def send(self, data: Data) -> None:
        """Send all of data."""
        self.stream.send(data)

    def send_unless_heard(self, data: Data) -> bool:
        """Send data; return False as soon as the server says something instead of listening, or left."""
        view = memoryview(data)
        while view:
            if self.has_input():
                return False
            count = self.stream.send_some(view[:SEND_STEP])
            view = view[count:]
            if not count:
                self._wait()
        return True

    def has_input(self) -> bool:
        """Return True if something came, or the server left. Does not wait."""
        return self.stream.has_input(BUFFER_SIZE)

    def read_until(self, mark: bytes) -> bytes:
        """Return what comes before mark; mark is dropped."""
        stream = self.stream
        self._keep_deadline()
        data = stream.receive(RECEIVE, False)
        searched = 0
        while True:
            end = data.find(mark, searched)
            if end >= 0:
                stream.ahead = data[end + len(mark) :]
                return data[:end]
            if stream.is_ended:
                raise self.lost("it was closed before the end of the answer")
            if len(data) > BUFFER_SIZE:
                raise self.protocol_error(f"more than {BUFFER_SIZE} bytes without {mark!r}")
            self._keep_deadline()
            searched = max(0, len(data) - len(mark) + 1)
            data += stream.receive(RECEIVE, False)

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte into view, 0 at the end."""
        stream = self.stream
        if not stream.ahead:
            self._keep_deadline()
        if len(view) < DIRECT_READ and not stream.ahead:
            stream.ahead = stream.receive(BUFFER_SIZE, False)
            if not stream.ahead:
                return 0
        return stream.readinto(view)

    def fill(self, view: memoryview) -> int:
        """Read until view is full; return how much was read, less than that only at the end."""
        if self._deadline is None:
            return self.stream.fill(view)
        done = 0
        while done < len(view):
            count = self.readinto(view[done:])
            if not count:
                break
            done += count
        return done

    def end_requests(self) -> None:
        """Tell the server that nothing more will come, while its answer still may."""
        self.stream.end()

    def stop_sending(self) -> None:
        """Let the server not wait for what could not be sent, while its answer still may come. Over TLS, too."""
        shut_down(self._sock, socket.SHUT_WR)

    def interrupt(self) -> None:
        """Make whatever blocks fail. Threads: any."""
        self.stream.interrupt()

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self.stream.close()

    def lost(self, reason: str) -> errors.Error:
        """Return the error for a connection that ended."""
        if self.stream.is_interrupted:
            return errors.OperationCanceled()
        error = Lost(self.operation, f"the connection to the image server was lost: {reason}")
        error.is_unheard = self.stream.received == self._received
        return error

    def protocol_error(self, what: str) -> errors.Error:
        """Return the error for an answer that is not HTTP."""
        return errors.BackendUntrusted(self.operation, f"the image server answered with no HTTP: {what}")

    # What the stream calls its failures.

    def late(self, is_sending: bool, seconds: float) -> errors.Error:
        """Return the error for a server that stands still."""
        return errors.BackendTimeout(self.operation, "the image server does not answer in time")

    def broken(self, is_sending: bool, reason: str) -> errors.Error:
        """Return the error for a connection that ended."""
        return self.lost(reason)

    def interrupted(self) -> errors.Error:
        """Return the error for a connection that another thread ended."""
        return errors.OperationCanceled()

    def _keep_deadline(self) -> None:
        """Let the next wait end at the deadline, if there is one; the first wait does so anyway."""
        if self._deadline is None or self.stream.received == self._received_before:
            return
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self.late(False, self._timeout)
        self.stream.timeout = max(left, SHORTEST_WAIT)

    def _wait(self) -> None:
        """Wait until something came, or there is room to send."""
        if not self._poll.poll(self._timeout * 1000):
            raise self.late(True, self._timeout)
