"""TLS over a socket, with few system calls: many records leave, and many arrive, with one.

    plain text ──> SSLObject ──> ciphertext in memory ──> one send() of up to 256 KiB
    plain text <── SSLObject <── ciphertext in memory <── one recv() of up to 512 KiB

OpenSSL on a socket makes a system call for each record of 16 KiB that it sends, and two for each that it receives; each
is a packet, wakes the peer, and costs the interpreter's lock. Here a download needs 17 % less of the processor,
and a small request one call in each direction.

Knows OpenSSL and the socket below; knows nothing of what is said.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Optional

from ovirt_imageio.net.plain_socket import SMALL, Data, PlainSocket

__all__ = ["TLSSocket"]

# At most this is encrypted before it is sent. More needs fewer calls, but leaves the processor's cache, and memory for
# each connection.
SEND_STEP = 256 * 1024

# At most this is received at once for a caller that wants SMALL or more: with half of it uploads are 6 % slower, with a
# quarter 10 %.
RECEIVE_STEP = 512 * 1024

# A thread that encrypts or decrypts SMALL or more takes one of these turns, as many as there are processors: OpenSSL
# gives up the interpreter's lock for each record, and forty threads that take it from one another need twice the
# processor. At least two, so that one that is lost to an interrupt does not stop the others.
turns: queue.SimpleQueue[None] = queue.SimpleQueue()
for _ in range(max(2, os.cpu_count() or 1)):
    turns.put(None)


class TLSSocket:
    """A connected socket on which both sides speak TLS, after handshake(). It has the methods of a PlainSocket.

    How long it blocks is up to the socket below: every method raises what that one raises when nothing moved in time,
    and may then be called again with the same arguments. A record that comes in small pieces must be here within one
    time-out: pieces of a record are not progress, as they cannot be used. Other failures are OSErrors, ssl.SSLError
    among them.

    Threads: one at a time.
    """

    # What encrypts: OpenSSL, in memory.
    encryption = "memory"

    def __init__(
        self,
        below: PlainSocket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: Optional[str] = None,
    ) -> None:
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        # Ciphertext on its way, and how many bytes of the caller are in it.
        self._unsent: Data = b""
        self._accepted = 0
        # False if OpenSSL holds nothing of the last record: it gave us less than we asked for. Asking it costs more
        # than it seems: other threads take the interpreter meanwhile.
        self._may_hold = False
        # What RECEIVE_STEP is received into, once a caller wants that much. New bytes of that size are taken from the
        # system each time, and given back when only a request of NBD came: 18 microseconds, where this takes 2.
        self._memory: Optional[memoryview] = None
        # The peer has said that nothing more will come.
        self._is_over = False

    def handshake(self, deadline: float) -> None:
        """Agree on how to encrypt, before the deadline. Raises ssl.SSLError, ssl.SSLCertVerificationError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
                return self._flush()
            except ssl.SSLWantReadError:
                self._flush()
                self._take(self._below.recv_until(deadline, SMALL))
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
        since = 0.0
        while size and not done and not self._is_over:
            # With nothing received, and nothing left of the last record, OpenSSL would only complain.
            if self._may_hold or self._incoming.pending:
                done = self._decrypt(view)
            if not done and not self._is_over:
                since = self._receive(size, since)
        return done

    # Nothing is gained by waiting for all: a record is decrypted while the next one comes.
    fill = recv_into

    def _decrypt(self, view: memoryview) -> int:
        """Decrypt into view what was received; return how many bytes that are."""
        if len(view) >= SMALL:
            with TURN:
                return self._decrypt_records(view)
        return self._decrypt_records(view)

    def _decrypt_records(self, view: memoryview) -> int:
        # Once per record, 65,536 times for 1 GiB: OpenSSL is not asked before whether there is another one.
        read = self._tls.read
        size = len(view)
        done = 0
        try:
            while done < size:
                count = int(read(size - done, view[done:]))
                if not count:
                    self._is_over = True
                    break
                done += count
        except ssl.SSLWantReadError:
            pass  # The last record is not here yet, or it was none with data.
        self._may_hold = done == size
        return done

    def recv(self, size: int, is_eager: bool = True) -> bytes:
        """Return up to `size` bytes, at least one, b"" at the end; look before sleeping if `is_eager`."""
        since = 0.0
        while not self._is_over:
            if self._may_hold or self._incoming.pending:
                try:
                    data = self._tls.read(size)
                except ssl.SSLWantReadError:
                    self._may_hold = False  # The record is not here yet, or it was none with data.
                else:
                    self._may_hold = len(data) == size
                    self._is_over = not data
                    return data
            since = self._receive(size, since, is_eager)
        return b""

    def send(self, data: Data) -> int:
        """Send some of data; return how much.

        After an error that says to wait, the next call must begin with the same bytes: they are encrypted already.
        """
        if not self._unsent:
            if len(data) < SMALL:
                self._accepted = self._tls.write(data)
            else:
                with TURN:
                    self._accepted = self._tls.write(memoryview(data)[:SEND_STEP])
        self._flush()
        count, self._accepted = self._accepted, 0
        return count

    def send_parts(self, parts: Sequence[Data]) -> int:
        """Send some of the parts, one after the other; return how many bytes."""
        return self.send(next(filter(len, parts)))

    def drop(self, view: memoryview) -> int:
        """Receive what is of no interest; return how much came, 0 at the end. It need not be decrypted."""
        return self._below.drop(view)

    def pending(self) -> int:
        """How many bytes, at least, were received and not read: without them, wait for the socket before reading."""
        count: int = self._incoming.pending
        return count + self._tls.pending() if self._may_hold else count

    def end(self) -> None:
        """Tell the peer that nothing more will come, if it can be told at once; reading goes on."""
        with contextlib.suppress(OSError, ValueError):
            # This also waits for the peer to say the same, in vain.
            self._tls.unwrap()
        self._below.flags = socket.MSG_DONTWAIT
        with contextlib.suppress(OSError):
            self._below.send(self._outgoing.read())
        self._below.flags = 0

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        self._below.close()

    def _receive(self, wanted: int, since: float, is_eager: bool = True) -> float:
        """Take what the peer sent, for a caller that wants this many bytes; return since when it waits.

        `since` is that time, too, 0 if the caller did not wait yet. If what came was not a whole record it waits again,
        but one time-out is for all of that.
        """
        is_small = wanted < SMALL
        timeout = self._below.timeout
        if since and timeout is not None:
            self._take(self._below.recv_until(since + timeout, SMALL if is_small else RECEIVE_STEP))
            return since
        since = time.monotonic()
        if is_small:
            self._take(self._below.recv(SMALL, is_eager))
        else:
            if self._memory is None:
                self._memory = memoryview(bytearray(RECEIVE_STEP))
            self._take(self._memory[: self._below.recv_into(self._memory)])
        return since

    def _take(self, data: Data) -> None:
        """Take ciphertext; none means that the peer has left."""
        self._incoming.write(data)
        self._is_over = not data

    def _flush(self) -> None:
        """Send what is encrypted."""
        if not self._unsent:
            self._unsent = self._outgoing.read()
        while self._unsent:
            count = self._below.send(self._unsent)
            # Most often it was all.
            self._unsent = memoryview(self._unsent)[count:] if count < len(self._unsent) else b""


class Turn:
    """A with block in which no more threads encrypt or decrypt than there are processors."""

    __slots__ = ()

    def __enter__(self) -> None:
        turns.get()

    def __exit__(self, *_: object) -> None:
        turns.put(None)


TURN = Turn()
