"""One connection as a stream of bytes: the one place where look-ahead, time-outs, TLS and interrupts meet.

    httpd (a client)      nbd (a server)      origin (a server)        what they say, and how failures are called
           └────────────────────┼────────────────────┘
                              Stream                                   look-ahead, interrupt, failures
                                │
       PlainSocket, TLSSocket or KernelTLSSocket               the same methods: recv, recv_into, send, ...
                                │
                           PlainSocket                                 time-outs of the kernel, looking before sleeping

A time-out bounds the wait for progress, never the time of a large buffer: a peer that is slow but steady is served.

Knows sockets and TLS; knows nothing of what is said.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Optional, Protocol

from ovirt_imageio.net.channel import Channel, speak_tls
from ovirt_imageio.net.kernel_tls import KernelTLSSocket
from ovirt_imageio.net.lifeline import shut_down
from ovirt_imageio.net.plain_socket import SMALL, Data, PlainSocket
from ovirt_imageio.net.timeouts import has_left, is_timeout, unsent
from ovirt_imageio.net.tls_socket import TLSSocket

__all__ = ["RECEIVE", "Data", "Failures", "Stream", "describe"]

# A TLS record, and more than any usual head.
RECEIVE = 16 * 1024

# Up to here one copy is cheaper than a system call for several parts is, and over TLS one record than two.
JOIN_LIMIT = SMALL


class Failures(Protocol):
    """What the owner of a stream calls the failures: each method returns the exception to raise."""

    def late(self, is_sending: bool, seconds: float) -> Exception:
        """Nothing moved for that long."""

    def broken(self, is_sending: bool, reason: str) -> Exception:
        """The connection is of no use any more."""

    def interrupted(self) -> Exception:
        """Another thread called interrupt()."""


class Stream:
    """A connected socket. `timeout` is the seconds to wait for progress, None for ever.

    Every failure of a method that receives or sends is raised as what `failures` returns for it.

    Threads: one at a time, but for `interrupt`, `is_interrupted`, `has_left` and `activity`, any.
    """

    __slots__ = (
        *("_channel", "_lock", "_readable", "_sent"),
        *("ahead", "failures", "is_ended", "is_interrupted", "is_tls", "received", "wire"),
    )

    def __init__(self, sock: socket.socket, timeout: Optional[float], failures: Failures) -> None:
        # The socket itself; over TLS its bytes are of no use elsewhere.
        self.wire = PlainSocket(sock, timeout)
        self.is_tls = False
        self._channel: Channel = self.wire
        # A protocol that takes the connection over may have other names for its failures.
        self.failures = failures
        # Held to close, and to shut down: so that a shutdown never hits the next owner of the descriptor.
        self._lock = threading.Lock()
        # How many bytes came, and how many left.
        self.received = 0
        self._sent = 0
        # Received, but not asked for yet.
        self.ahead = b""
        # True if the peer will send nothing more.
        self.is_ended = False
        self.is_interrupted = False
        # Made for the first look ahead: most streams never need it.
        self._readable: Optional[select.poll] = None

    @property
    def timeout(self) -> Optional[float]:
        """How long the peer may stand still, in seconds."""
        return self.wire.timeout

    @timeout.setter
    def timeout(self, seconds: Optional[float]) -> None:
        self.wire.timeout = seconds

    @property
    def sink(self) -> Optional[socket.socket]:
        """The socket, if it takes the next bytes as they are: a plain one, or one whose kernel encrypts them."""
        takes = not self.is_tls or isinstance(self._channel, KernelTLSSocket)
        return self.wire.prepare() if takes else None

    @property
    def socket(self) -> Optional[socket.socket]:
        """The plain socket, which takes the next bytes, and has those after `ahead`; None over TLS.

        It blocks, for as long as the time-out says.
        """
        return None if self.is_tls else self.wire.prepare()

    @property
    def encryption(self) -> str:
        """What encrypts: "none", OpenSSL in "memory", the "kernel", for sending only "kernel-send", or "openssl"."""
        return self._channel.encryption

    @property
    def is_worn(self) -> bool:
        """True if the keys of TLS have encrypted enough: then the connection should end when that is possible."""
        channel = self._channel
        return isinstance(channel, KernelTLSSocket) and channel.is_worn(self._sent)

    def start_tls(
        self,
        context: ssl.SSLContext,
        deadline: float,
        *,
        server_side: bool = False,
        server_hostname: Optional[str] = None,
    ) -> None:
        """Speak TLS from now on, when the handshake is over before the deadline. Raises OSError as it is."""
        assert not self.ahead
        self._channel = speak_tls(
            self.wire, context, deadline, server_side=server_side, server_hostname=server_hostname
        )
        self.is_tls = True

    # Receiving.

    def receive(self, size: int = RECEIVE, is_eager: bool = True) -> bytes:
        """Return the next bytes, up to `size` if none are ahead, b"" at the end; look before sleeping if `is_eager`."""
        data = self.ahead
        if data:
            self.ahead = b""
            return data
        try:
            data = self._channel.recv(size, is_eager)
        except OSError as error:
            raise self.failure(error, is_sending=False) from error
        if not data:
            self._note_end()
        self.received += len(data)
        return data

    def readinto(self, view: memoryview) -> int:
        """Read what there is, at least one byte; return how many, 0 at the end."""
        if self.ahead:
            count = min(len(view), len(self.ahead))
            view[:count] = self.ahead[:count]
            self.ahead = self.ahead[count:]
            return count
        try:
            count = self._channel.recv_into(view)
        except OSError as error:
            raise self.failure(error, is_sending=False) from error
        if not count and len(view):
            self._note_end()
        self.received += count
        return count

    def fill(self, view: memoryview, is_patient: bool = False) -> int:
        """Read until view is full; return how much was read, less than that only at the end.

        This loop is where most bytes of NBD and of a proxy pass. `is_patient`: the kernel does not wake us before all
        of it is here. For a server on a Unix socket that is cheaper; over TCP it needs 30 % more of the processor, as
        we sleep while there is something to do.
        """
        size = len(view)
        done = self.readinto(view) if self.ahead else 0
        receive = self._channel.fill if is_patient else self._channel.recv_into
        try:
            while done < size:
                count = receive(view[done:])
                if not count:
                    self._note_end()
                    break
                done += count
                self.received += count
        except OSError as error:
            raise self.failure(error, is_sending=False) from error
        return done

    def read_until(self, mark: bytes, limit: int, is_eager: bool = True) -> Optional[bytes]:
        """Return what comes before the mark, which is dropped; None if the peer ends before.

        What is longer than `limit` bytes, and has no mark, is returned as it is.
        """
        data = self.receive(RECEIVE, is_eager)
        searched = 0
        while True:
            end = data.find(mark, searched)
            if end >= 0:
                self.ahead = data[end + len(mark) :]
                return data[:end]
            if self.is_ended:
                return None
            if len(data) > limit:
                return data
            searched = max(0, len(data) - len(mark) + 1)
            data += self.receive(RECEIVE, is_eager)

    def look(self, size: int) -> bool:
        """Return True if something of up to `size` bytes came soon on the plain socket, which is ahead then."""
        try:
            data = self.wire.eager.recv(size)
        except OSError as error:
            raise self.failure(error, is_sending=False) from error
        if data is None:
            return False
        if not data:
            self._note_end()
        self.received += len(data)
        self.ahead = data
        return True

    def is_ready(self) -> bool:
        """Return True if there is something to receive, or the peer has left. Over TLS it may be nothing for us."""
        if self.ahead or self._channel.pending():
            return True
        if self._readable is None:
            self._readable = select.poll()
            self._readable.register(self.wire.sock, select.POLLIN)
        return bool(self._readable.poll(0))

    def pending(self) -> int:
        """How many bytes, at least, were taken from the socket and not asked for; over TLS it may be nothing for us."""
        return len(self.ahead) + self._channel.pending()

    def has_input(self, size: int = RECEIVE) -> bool:
        """Return True if something came, which is ahead then, or the peer has left. Does not wait.

        Over TLS there may have been something to receive, and nothing for us.
        """
        if self.ahead:
            return True
        if not self.is_ready():
            return False
        try:
            self.wire.flags = socket.MSG_DONTWAIT
            self.ahead = self._channel.recv(size)
        except BlockingIOError:
            return False
        except OSError:
            return True  # The next call that receives tells what happened.
        finally:
            self.wire.flags = 0
        self.received += len(self.ahead)
        return True

    def receive_some(self, view: memoryview) -> Optional[int]:
        """Read what is here into view; return how many bytes, 0 at the end, None if nothing is here. Does not wait."""
        if self.ahead:
            return self.readinto(view)
        wire = self.wire
        wire.flags = socket.MSG_DONTWAIT
        try:
            count = self._channel.recv_into(view)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self.failure(error, is_sending=False) from error
        finally:
            wire.flags = 0
        if not count:
            self._note_end()
        self.received += count
        return count

    def drop(self, view: memoryview) -> int:
        """Receive what is of no interest; return how much came, 0 at the end. Raises OSError as it is."""
        return self._channel.drop(view)

    # Sending.

    def send(self, data: Data) -> None:
        """Send all of it."""
        try:
            count = self._channel.send(data)
            self._sent += count
            if count < len(data):
                view = memoryview(data)
                while count < len(view):
                    step = self._channel.send(view[count:])
                    self._sent += step
                    count += step
        except OSError as error:
            raise self.failure(error, is_sending=True) from error

    def send_parts(self, parts: Sequence[Data]) -> None:
        """Send them one after the other, in one write if possible."""
        if sum(map(len, parts)) <= JOIN_LIMIT:
            self.send(b"".join(parts))
            return
        try:
            done = self._channel.send_parts(parts)
        except OSError as error:
            raise self.failure(error, is_sending=True) from error
        self._sent += done
        for part in parts:
            if done < len(part):
                self.send(memoryview(part)[done:])
            done = max(0, done - len(part))

    def send_ahead(self, data: Data) -> None:
        """Send bytes that more will follow at once, put into the sink by others."""
        channel = self._channel
        assert not isinstance(channel, TLSSocket)
        try:
            count = channel.send_ahead(data)
        except OSError as error:
            raise self.failure(error, is_sending=True) from error
        self._sent += count
        if count < len(data):
            self.send(memoryview(data)[count:])

    def send_some(self, data: Data) -> int:
        """Send what can be sent without waiting; return how much, 0 if that is nothing.

        The next bytes to send must be those that were not taken.
        """
        wire = self.wire
        wire.flags = socket.MSG_DONTWAIT
        try:
            count = self._channel.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self.failure(error, is_sending=True) from error
        finally:
            wire.flags = 0
        self._sent += count
        return count

    def end(self) -> None:
        """Tell the peer that nothing more will come; receiving goes on. Over TLS the socket itself stays open."""
        try:
            self._channel.end()
        except OSError as error:
            raise self.failure(error, is_sending=True) from error

    # What others do, or look at.

    def note_moved(self, count: int) -> None:
        """Note bytes that were moved through the socket by others."""
        self._sent += count

    def activity(self) -> int:
        """Return a number that changes when the peer gives or takes something. Threads: any."""
        with self._lock:
            return self.received + self._sent - unsent(self.wire.sock)

    def has_left(self) -> bool:
        """Return True if the peer will send nothing more, though some of it may be to receive. Threads: any."""
        with self._lock:
            return has_left(self.wire.sock)

    def interrupt(self) -> None:
        """Make whatever blocks here fail at once, in both directions, now and later. Threads: any."""
        with self._lock:
            self.is_interrupted = True
            shut_down(self.wire.sock)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        with self._lock:
            self._channel.close()

    def failure(self, error: OSError, is_sending: bool) -> Exception:
        """Return what the owner calls an error of the system."""
        if self.is_interrupted:
            self.is_ended = True
            return self.failures.interrupted()
        if is_timeout(error) and self.timeout is not None:
            # A peer that is silent may only be late; one that takes nothing has part of something.
            self.is_ended = self.is_ended or is_sending
            return self.failures.late(is_sending, self.timeout)
        self.is_ended = True
        return self.failures.broken(is_sending, describe(error))

    def _note_end(self) -> None:
        self.is_ended = True
        if self.is_interrupted:
            raise self.failures.interrupted()


def describe(error: OSError) -> str:
    """Return what happened, without the noise of OpenSSL."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return error.strerror or str(error) or "the connection was closed"
