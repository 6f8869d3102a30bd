"""TLS by OpenSSL on the socket itself: how TLS in the kernel begins, and what remains for what the kernel cannot do.

OpenSSL hands its keys to the kernel only when it has the socket. That costs system calls, one for each record that is
sent and two for each that comes, so what is not going to be encrypted by the kernel takes TLSSocket instead.

Knows OpenSSL and the socket below; knows nothing of what is said.
"""

from __future__ import annotations

import contextlib
import errno
import os
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Optional

from ovirt_imageio.net.plain_socket import Data, PlainSocket
from ovirt_imageio.net.timeouts import is_ready

__all__ = ["DescriptorTLS"]

# What OpenSSL sends with one call.
RECORD = 16 * 1024


class DescriptorTLS:
    """A connected socket on which both sides speak TLS, after handshake(). It has the methods of a PlainSocket.

    Threads: one at a time.
    """

    # What encrypts: OpenSSL, on the socket.
    encryption = "openssl"

    def __init__(
        self,
        below: PlainSocket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: Optional[str] = None,
    ) -> None:
        self.is_server = server_side
        self.below = below
        # OpenSSL gets a descriptor of its own: Python has its own time-outs on that.
        self._tls = context.wrap_socket(
            below.sock.dup(),
            server_side=server_side,
            server_hostname=server_hostname,
            do_handshake_on_connect=False,
        )
        # How many bytes of the caller OpenSSL has encrypted, but could not send.
        self._begun = 0
        self._is_over = False

    def handshake(self, deadline: float) -> None:
        """Agree on how to encrypt, before the deadline. Raises ssl.SSLError, ssl.SSLCertVerificationError, OSError."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            self._tls.settimeout(left)
            self._tls.do_handshake()
        finally:
            # From now on Python must not wait on its own: it raises SSLWantReadError when the kernel's time is over.
            # The descriptors are one socket, which blocks.
            self._tls.settimeout(0)
            self.below.sock.setblocking(True)

    @property
    def cipher(self) -> str:
        """What OpenSSL calls the cipher."""
        found = self._tls.cipher()
        return found[0] if found else ""

    def recv(self, size: int, is_eager: bool = True) -> bytes:
        """Return up to `size` bytes, at least one, b"" at the end. All of a record must be here within the time-out."""
        timeout = self.below.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_over:
            with self._waiting(False):
                try:
                    data = self._tls.recv(size)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    data = None
                except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                    data = b""
            if data is not None:
                self._is_over = not data
                return data
            if self.below.flags:
                raise would_wait()
            if not is_ready(self.below.sock, None if deadline is None else max(0, deadline - time.monotonic())):
                raise TimeoutError
        return b""

    def recv_into(self, view: memoryview) -> int:
        """Read at least one byte into view, up to a record; return how many, 0 at the end."""
        if self._is_over or not len(view):
            return 0
        self.below.prepare()
        with self._waiting(not self.below.flags):
            try:
                count = int(self._tls.recv_into(view))
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise would_wait() from None
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                count = 0
        self._is_over = not count
        return count

    fill = recv_into

    def send(self, data: Data) -> int:
        """Send some of data; return how much.

        After an error that says to wait, the next call must begin with the same bytes: they are encrypted already.
        """
        self.below.prepare()
        size = self._begun or min(len(data), RECORD)
        with self._waiting(not self.below.flags):
            try:
                count = self._tls.send(memoryview(data)[:size])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._begun = size
                raise would_wait() from None
        self._begun = 0
        return count

    def send_parts(self, parts: Sequence[Data]) -> int:
        """Send some of the parts, one after the other; return how many bytes."""
        return self.send(next(filter(len, parts)))

    send_ahead = send

    def drop(self, view: memoryview) -> int:
        """Receive what is of no interest; return how much came, 0 at the end. It need not be decrypted."""
        return self.below.drop(view)

    def pending(self) -> int:
        """How many bytes, at least, were received and not read."""
        return self._tls.pending()

    def end(self) -> None:
        """Tell the peer that nothing more will come, if it can be told at once; reading goes on."""
        with self._waiting(False), contextlib.suppress(OSError, ValueError):
            # This also waits for the peer to say the same, in vain.
            self._tls.unwrap()

    def release(self) -> None:
        """Forget OpenSSL's side of it; harmless when repeated."""
        self._tls.close()

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self._tls.close()
        self.below.close()

    @contextlib.contextmanager
    def _waiting(self, is_patient: bool) -> Iterator[None]:
        """Let the with block wait for the socket, for as long as the kernel was told, or not."""
        if is_patient:
            yield
            return
        sock = self.below.sock
        sock.setblocking(False)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                sock.setblocking(True)


def would_wait() -> BlockingIOError:
    """Return the error of what cannot be done now, or was not possible in time."""
    return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
