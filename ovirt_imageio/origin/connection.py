"""One connection to an HTTP server: bytes out, lines and bytes in, and every failure with a name.

Knows sockets; knows neither requests nor replies.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator
from typing import Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.net.timeouts import is_timeout, set_timeout
from ovirt_imageio.net.tls_socket import TLSSocket

__all__ = ["BUFFER_SIZE", "Data", "Lost", "Peer"]

Data = Union[bytes, memoryview]

# Heads and small bodies pass through a buffer of this size; a longer head is refused.
BUFFER_SIZE = 64 * 1024

# Reads from here on go straight to the caller's view; smaller ones would cost a system call each.
DIRECT_READ = 16 * 1024

# One call that sends waits at most the time-out: in larger steps a slow but steady server would be cut.
SEND_STEP = 256 * 1024


class Lost(errors.BackendUnavailable):
    """The connection ended; `is_unheard` is True if nothing came since the request began."""

    is_unheard = False


class Peer:
    """The server at the other end of a socket, plain or with TLS.

    `operation` names what is going on, for the errors: errors.BackendTimeout, Lost, errors.BackendUntrusted if what
    came is no HTTP, and errors.OperationCanceled after `interrupt`.

    Threads: one at a time, but for `interrupt`.
    """

    def __init__(self, sock: Union[socket.socket, TLSSocket], timeout: float) -> None:
        self._sock = sock
        # What the bytes of both kinds pass through.
        self._wire = sock.socket if isinstance(sock, TLSSocket) else sock
        self._timeout = timeout
        # How long the kernel was told to wait.
        self._told: Optional[float] = timeout
        self._buffer = memoryview(bytearray(BUFFER_SIZE))
        self._start = 0
        self._end = 0
        self._poll = select.poll()
        self._poll.register(self._wire, select.POLLIN)
        self._poll_both = select.poll()
        self._poll_both.register(self._wire, select.POLLIN | select.POLLOUT)
        self._is_interrupted = False
        self._is_unheard = False
        self.operation = "connect"
        set_timeout(self._wire, timeout)

    @property
    def socket(self) -> Optional[socket.socket]:
        """The plain socket, if the next bytes to read are still in it; None over TLS."""
        return self._wire if self._sock is self._wire and self._start == self._end else None

    @property
    def is_same_host(self) -> bool:
        """True if both ends have the same address."""
        if self._wire.family == socket.AF_UNIX:
            return True
        try:
            return bool(self._wire.getsockname()[0] == self._wire.getpeername()[0])
        except OSError:  # It left already.
            return False

    def begin(self, operation: str, is_patient: bool = False) -> None:
        """Begin a request, whose answer may take as long as it likes if `is_patient`."""
        self.operation = operation
        self._is_unheard = True
        timeout = None if is_patient else self._timeout
        # Most often it stays what it is: telling the kernel costs two system calls.
        if timeout != self._told:
            set_timeout(self._wire, timeout)
            self._told = timeout

    def send(self, data: Data) -> None:
        """Send all of data."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._sock.send(view[:SEND_STEP]) :]
        except OSError as e:
            raise self._failure(e) from e

    def send_unless_heard(self, data: Data) -> bool:
        """Send data; return False as soon as the server says something instead of listening, or left."""
        view = memoryview(data)
        if self._start < self._end:
            return False
        try:
            with self._without_waiting():
                while view:
                    if self._poll.poll(0) and self._take_input():
                        return False
                    try:
                        view = view[self._sock.send(view[:SEND_STEP]) :]
                    except BlockingIOError:
                        self._wait()
        except OSError as e:
            raise self._failure(e) from e
        return True

    def has_input(self) -> bool:
        """Return True if something came, or the server left. Does not wait."""
        if self._start < self._end:
            return True
        is_here = isinstance(self._sock, TLSSocket) and self._sock.pending()
        if not is_here and not self._poll.poll(0):
            return False
        with self._without_waiting():
            return self._take_input()

    def read_until(self, mark: bytes) -> bytes:
        """Return what comes before mark; mark is dropped."""
        data = bytearray()
        while True:
            self._require_input()
            old = len(data)
            data += self._buffer[self._start : self._end]
            end = data.find(mark, max(0, old - len(mark) + 1))
            if end >= 0:
                self._start += end + len(mark) - old
                return bytes(data[:end])
            self._start = self._end
            if len(data) > BUFFER_SIZE:
                raise self.protocol_error(f"more than {BUFFER_SIZE} bytes without {mark!r}")

    def readinto(self, view: memoryview) -> int:
        """Read at least one byte into view, 0 at the end."""
        if self._start == self._end:
            if len(view) >= DIRECT_READ:
                return self._receive(view)
            self._start, self._end = 0, self._receive(self._buffer)
        count = min(len(view), self._end - self._start)
        view[:count] = self._buffer[self._start : self._start + count]
        self._start += count
        return count

    def fill(self, view: memoryview) -> int:
        """Read until view is full; return how much was read, less than that only at the end.

        This loop is where most bytes of a proxy pass.
        """
        done = self.readinto(view)
        receive, size = self._sock.recv_into, len(view)
        try:
            while 0 < done < size:
                count = receive(view[done:])
                if not count:
                    break
                done += count
        except OSError as e:
            raise self._failure(e) from e
        return done

    def end_requests(self) -> None:
        """Tell the server that nothing more will come, while its answer still may."""
        try:
            if isinstance(self._sock, TLSSocket):
                # Our half of the farewell; the other half comes after the answer.
                self._sock.end()
            else:
                self._sock.shutdown(socket.SHUT_WR)
        except OSError as e:
            raise self.lost(str(e)) from e

    def interrupt(self) -> None:
        """Make whatever blocks fail. Threads: any."""
        self._is_interrupted = True
        with contextlib.suppress(OSError):
            self._wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self._wire.close()

    def lost(self, reason: str) -> errors.Error:
        """Return the error for a connection that ended."""
        if self._is_interrupted:
            return errors.OperationCanceled()
        error = Lost(self.operation, f"the connection to the origin was lost: {reason}")
        error.is_unheard = self._is_unheard
        return error

    def protocol_error(self, what: str) -> errors.Error:
        """Return the error for an answer that is no HTTP."""
        return errors.BackendUntrusted(self.operation, f"the origin answered with no HTTP: {what}")

    def _take_input(self) -> bool:
        """Take what can be read; False if there is nothing. Over TLS it may be the ticket of a TLS session only."""
        try:
            self._start, self._end = 0, self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return False
        except OSError:
            return True
        if self._end:
            self._is_unheard = False
        return True

    @contextlib.contextmanager
    def _without_waiting(self) -> Iterator[None]:
        """Let what would wait raise BlockingIOError instead."""
        self._wire.setblocking(False)
        try:
            yield
        finally:
            self._wire.setblocking(True)

    def _wait(self) -> None:
        """Wait until something came, or there is room to send. Raises TimeoutError."""
        if not self._poll_both.poll(self._timeout * 1000):
            raise TimeoutError

    def _require_input(self) -> None:
        if self._start == self._end:
            self._start, self._end = 0, self._receive(self._buffer)
            if not self._end:
                raise self.lost("it was closed before the end of the answer")

    def _receive(self, view: memoryview) -> int:
        try:
            count = self._sock.recv_into(view)
        except OSError as e:
            raise self._failure(e) from e
        if count:
            self._is_unheard = False
        elif self._is_interrupted:
            raise errors.OperationCanceled()
        return count

    def _failure(self, error: OSError) -> errors.Error:
        if is_timeout(error) and not self._is_interrupted:
            return errors.BackendTimeout(self.operation, "the origin does not answer in time")
        return self.lost(error.strerror or str(error))
