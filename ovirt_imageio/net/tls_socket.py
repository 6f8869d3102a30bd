"""TLS over a socket, with few system calls: many records leave, and many arrive, with one.

    plain text ──> SSLObject ──> ciphertext in memory ──> one send() of up to 256 KiB
    plain text <── SSLObject <── ciphertext in memory <── one recv() of up to 512 KiB

OpenSSL on a socket makes a system call for each record of 16 KiB that it sends, and two for each that it receives; each
is a packet, wakes the peer, and costs the interpreter's lock. Here a download takes a sixth less of the processor, and
a small request one call in each direction.

Knows sockets and OpenSSL; knows nothing of what is said.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import ssl
from typing import Callable, Optional, Union

from ovirt_imageio.net.eager import EagerSocket

__all__ = ["Data", "TLSSocket"]

Data = Union[bytes, bytearray, memoryview]

# So much is encrypted before it is sent. More needs fewer calls, but leaves the processor's cache, and memory for each
# connection.
SEND_STEP = 256 * 1024

# So much is received at once for who wants much: with half of it uploads are a sixteenth slower, with a quarter a
# tenth.
RECEIVE_STEP = 512 * 1024

# And so much for everybody else: a whole request, and below what the allocator asks the system for each time.
SMALL_STEP = 64 * 1024

# Who encrypts or decrypts more than that takes one of these turns, as many as there are processors: OpenSSL gives up
# the interpreter's lock for each record, and forty threads that take it from one another need twice the processor. At
# least two, so that one that is lost to an interrupt stops nobody.
turns: queue.SimpleQueue[None] = queue.SimpleQueue()
for _ in range(max(2, os.cpu_count() or 1)):
    turns.put(None)


class TLSSocket:
    """A connected socket on which both sides speak TLS, after handshake().

    How long it blocks is up to the socket: every method raises what the socket raises when that is too long, and may
    then be called again with the same arguments. Other failures are OSErrors, ssl.SSLError among them.

    Threads: one at a time.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: Optional[str] = None,
        send: Optional[Callable[[Data], int]] = None,
    ) -> None:
        self._sock = sock
        self._eager = EagerSocket(sock)
        # What sends ciphertext, if the owner knows better how to wait for the peer.
        self._send = send or sock.send
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        # Ciphertext on its way, and how many bytes of the caller are in it.
        self._unsent = memoryview(b"")
        self._accepted = 0
        # The peer has said that nothing more will come.
        self._is_over = False

    @property
    def socket(self) -> socket.socket:
        """The socket below; its bytes are not for anybody else."""
        return self._sock

    def handshake(self, before_receive: Callable[[], None] = lambda: None) -> None:
        """Agree on how to encrypt. Raises ssl.SSLError, ssl.SSLCertVerificationError and what before_receive raises."""
        while True:
            try:
                self._tls.do_handshake()
                return self._flush()
            except ssl.SSLWantReadError:
                self._flush()
                before_receive()
                self._receive(0)
                if self._is_over:
                    raise ConnectionResetError("The peer left during the TLS handshake") from None
            except ssl.SSLError:
                # The peer should learn why.
                with contextlib.suppress(OSError):
                    self._flush()
                raise

    def recv_into(self, view: memoryview) -> int:
        """Read at least one byte into view, as many as are here; return how many, 0 at the end."""
        size = len(view)
        done = 0
        while size and not done and not self._is_over:
            # With nothing received, and nothing left of the last record, OpenSSL would only complain.
            if self.pending():
                done = self._decrypt(view)
            if not done and not self._is_over:
                self._receive(size)
        return done

    def _decrypt(self, view: memoryview) -> int:
        """Decrypt into view what was received; return how many bytes that are."""
        if len(view) >= SMALL_STEP:
            with TURN:
                return self._decrypt_records(view)
        return self._decrypt_records(view)

    def _decrypt_records(self, view: memoryview) -> int:
        size = len(view)
        done = 0
        try:
            while done < size and not self._is_over and self.pending():
                count = int(self._tls.read(size - done, view[done:]))
                self._is_over = not count
                done += count
        except ssl.SSLWantReadError:
            pass  # The last record is not here yet, or it was none with data.
        return done

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, at least one, b"" at the end."""
        while not self._is_over:
            if self.pending():
                try:
                    data = self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass  # The record is not here yet, or it was none with data.
                else:
                    self._is_over = not data
                    return data
            self._receive(size)
        return b""

    def send(self, data: Data) -> int:
        """Send some of data; return how much.

        After an error that says to wait, the next call must begin with the same bytes: they are encrypted already.
        """
        if not self._unsent:
            if len(data) < SMALL_STEP:
                self._accepted = self._tls.write(data)
            else:
                with TURN:
                    self._accepted = self._tls.write(memoryview(data)[:SEND_STEP])
        self._flush()
        count, self._accepted = self._accepted, 0
        return count

    def sendall(self, data: Data) -> None:
        """Send all of data."""
        done = 0
        while done < len(data):
            done += self.send(memoryview(data)[done:])

    def pending(self) -> int:
        """How many bytes, at least, were received and not read: without them, wait for the socket before reading."""
        return self._tls.pending() + self._incoming.pending

    def end(self) -> None:
        """Tell the peer that nothing more will come, if it can be told at once; reading goes on."""
        with contextlib.suppress(OSError, ValueError):
            # This also waits for the peer to say the same, in vain.
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            self._sock.send(self._outgoing.read(), socket.MSG_DONTWAIT)

    def _receive(self, wanted: int) -> None:
        """Take what the peer sent, for somebody who wants so many bytes, 0 if there is no hurry."""
        data = self._eager.recv(SMALL_STEP) if 0 < wanted < SMALL_STEP else None
        if data is None:
            data = self._sock.recv(RECEIVE_STEP if wanted >= SMALL_STEP else SMALL_STEP)
        self._incoming.write(data)
        self._is_over = not data

    def _flush(self) -> None:
        """Send what is encrypted."""
        if not self._unsent:
            self._unsent = memoryview(self._outgoing.read())
        while self._unsent:
            self._unsent = self._unsent[self._send(self._unsent) :]


class Turn:
    """A with block in which no more threads encrypt or decrypt than there are processors."""

    __slots__ = ()

    def __enter__(self) -> None:
        turns.get()

    def __exit__(self, *_: object) -> None:
        turns.put(None)


TURN = Turn()
