"""TLS whose bytes the kernel encrypts and decrypts: OpenSSL does the handshake, and hands the keys over.

    allow(context)    once: connections of this context may do it, if this system can
    begin(...)        for each connection: TLS on the socket itself, None where that would be in vain
    take_over(tls)    after the handshake: what the kernel does of it, in each direction

Then bytes may go into the socket from a file or a pipe, without a copy (see Stream.sink). What comes is received, and
decrypted into the caller's memory; records that hold no data are told apart, see controls.py.

Knows OpenSSL, the socket below, and where Linux tells what it can; knows nothing of what is said.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Callable, Optional, TypeVar, Union

from ovirt_imageio.net import controls
from ovirt_imageio.net.controls import SOL_TLS, Reaction
from ovirt_imageio.net.descriptor_tls import DescriptorTLS
from ovirt_imageio.net.plain_socket import Data, PlainSocket
from ovirt_imageio.net.timeouts import is_ready

__all__ = ["KernelTLSSocket", "allow", "begin", "experience", "take_over", "why_not"]

T = TypeVar("T")

# Python 3.12 has a name for it; OpenSSL knows it since 3.0.
ENABLE_KTLS = 0x8

# include/uapi/linux/tcp.h and tls.h. Python 3.9 has no name for the first one.
TCP_ULP = 31
TLS_TX = 1
TLS_RX = 2
TLS_RX_EXPECT_NO_PAD = 4

# The version and the cipher of one direction: struct tls_crypto_info.
CRYPTO_INFO = struct.Struct("@HH")

FIPS = "/proc/sys/crypto/fips_enabled"

# AES-GCM should encrypt no more records with one key, RFC 8446 section 5.5, and the kernel is not given another one:
# 256 GiB of full records. OpenSSL changes no keys by itself, either.
RECORDS_LIMIT = 2**24

# So many first connections whose keys the kernel did not take are enough: each is slower than it needs to be. One is
# not, as a client can have a reason of its own: it may want short records.
TRIES = 3


class Experience:
    """Whether the kernel takes keys in this process. Threads: any; one failure more or less does not matter."""

    def __init__(self) -> None:
        self.has_succeeded = False
        self.failures = 0

    @property
    def is_bad(self) -> bool:
        """True if it is not worth another try."""
        return self.failures >= TRIES and not self.has_succeeded


experience = Experience()


def why_not() -> str:
    """Return what keeps this process from TLS in the kernel now, "" if nothing does."""
    if experience.is_bad:
        return "OpenSSL gives the kernel no keys: it was built without that, or the kernel has no AES-GCM"
    if ssl.OPENSSL_VERSION_INFO < (3,):
        return f"{ssl.OPENSSL_VERSION} cannot"
    with contextlib.suppress(OSError), open(FIPS) as file:
        if file.read().strip() == "1":
            return "the system is in FIPS mode, which is certified for OpenSSL"
    try:
        attach_on_loopback()
    except OSError as error:
        if error.errno == errno.ENOENT:
            return "the module tls is not loaded"
        return f"the kernel refuses: {os.strerror(error.errno or 0)}"
    return ""


def attach_on_loopback() -> None:
    """Prepare a connection to ourselves for TLS. Raises OSError. The kernel may load the module, if we are root."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.connect(listening.getsockname())
        attach(sock)


def attach(sock: socket.socket) -> None:
    """Prepare a connected TCP socket for TLS in the kernel: until it gets keys, all is as before. Raises OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")


def allow(context: ssl.SSLContext) -> None:
    """Let connections of this context be encrypted by the kernel, if it can. What is asked here is not asked again."""
    if not why_not():
        context.options |= ENABLE_KTLS


def begin(
    below: PlainSocket, context: ssl.SSLContext, *, server_side: bool, server_hostname: Optional[str]
) -> Optional[DescriptorTLS]:
    """Return TLS that the kernel may take over after the handshake; None if it will not. Raises OSError."""
    if not context.options & ENABLE_KTLS or experience.is_bad:
        return None
    try:
        attach(below.sock)
    except OSError:
        return None  # The module was removed, the peer has left, or it is not TCP.
    return DescriptorTLS(below, context, server_side=server_side, server_hostname=server_hostname)


def take_over(tls: DescriptorTLS) -> Union[KernelTLSSocket, DescriptorTLS]:
    """Return what the connection is after the handshake: the kernel's, as far as it took the keys."""
    sends = version_of(tls.below.sock, TLS_TX)
    if not sends:
        # Every kernel with TLS has this cipher.
        experience.failures += "GCM" in tls.cipher
        return tls
    experience.has_succeeded = True
    # What OpenSSL has received already the kernel cannot give.
    receives = 0 if tls.pending() else version_of(tls.below.sock, TLS_RX)
    return KernelTLSSocket(tls, receives)


def version_of(sock: socket.socket, direction: int) -> int:
    """Return the version of TLS that the kernel speaks in one direction, 0 for none."""
    try:
        version, _ = CRYPTO_INFO.unpack(sock.getsockopt(SOL_TLS, direction, CRYPTO_INFO.size))
    except (OSError, struct.error):
        return 0
    return int(version)


class KernelTLSSocket:
    """A connected socket for which the kernel speaks TLS. It has the methods of a PlainSocket.

    Sending is always up to the kernel. Receiving is, too, but where OpenSSL cannot hand that over: TLS 1.3 before
    OpenSSL 3.2.

    Threads: one at a time.
    """

    def __init__(self, tls: DescriptorTLS, version: int, limit: int = RECORDS_LIMIT) -> None:
        self._below = tls.below
        self._sock = tls.below.sock
        # What receives, if the kernel does not.
        self._tls = None if version else tls
        self.encryption = "kernel" if version else "kernel-send"
        self._reader = controls.Reader(is_server=tls.is_server, version=version)
        self._limit = limit
        # How many times something was sent, which makes a record at least.
        self._sends = 0
        # Some records without data came since there was data.
        self._is_amid_controls = False
        self._is_over = False
        if version:
            tls.release()
        if version >= controls.TLS_1_3:
            # Data is decrypted where we want it at once; what turns out to be something else is decrypted again.
            with contextlib.suppress(OSError):  # Linux 6.0.
                self._sock.setsockopt(SOL_TLS, TLS_RX_EXPECT_NO_PAD, 1)

    # Receiving.

    def recv(self, size: int, is_eager: bool = True) -> bytes:
        """Return up to `size` bytes, at least one, b"" at the end; look before sleeping if `is_eager`.

        The time-out is for all of it: a record without data, or a part of one, is not progress.
        """
        if self._tls is not None:
            return self._tls.recv(size, is_eager)
        timeout = self._below.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._receive(lambda: self._recv(size, is_eager, deadline), b"")

    def recv_into(self, view: memoryview) -> int:
        """Read at least one byte into view, as many as are here; return how many, 0 at the end."""
        if self._tls is not None:
            return self._tls.recv_into(view)
        return self._receive(lambda: self._below.recv_into(view), 0) if len(view) else 0

    # A record is decrypted while the next one comes.
    fill = recv_into

    def _recv(self, size: int, is_eager: bool, deadline: Optional[float]) -> bytes:
        below = self._below
        if below.flags:
            return below.recv(size)
        if is_eager:
            data = below.eager.recv(size)
            if data is not None:
                return data
        while True:
            if not is_ready(self._sock, None if deadline is None else max(0, deadline - time.monotonic())):
                raise TimeoutError
            with contextlib.suppress(BlockingIOError):
                return self._sock.recv(size, socket.MSG_DONTWAIT)

    def _receive(self, receive: Callable[[], T], nothing: T) -> T:
        """Return what receive() returns, `nothing` at the end, after what comes before that and is not data."""
        while not self._is_over:
            try:
                found = receive()
            except OSError as error:
                # The kernel says so when the next record is not data.
                if error.errno != errno.EIO:
                    raise
                self._take_control()
                continue
            if self._is_amid_controls:
                self._reader.note_data()
                self._is_amid_controls = False
            self._is_over = not found
            return found
        return nothing

    def _take_control(self) -> None:
        """Take a record that is not data. Raises BrokenTLS."""
        self._is_amid_controls = True
        record, ancillary, _, _ = self._sock.recvmsg(controls.RECORD, socket.CMSG_SPACE(1), socket.MSG_DONTWAIT)
        # What comes after a record that must not be is never read, whoever asks.
        self._is_over = True
        reaction = self._reader.take(controls.type_of(ancillary), record)
        self._is_over = reaction is Reaction.END
        if reaction is Reaction.REFUSE:
            with contextlib.suppress(BlockingIOError):
                self._alert(controls.NO_RENEGOTIATION, socket.MSG_DONTWAIT)

    def drop(self, view: memoryview) -> int:
        """Receive what is of no interest; return how much came, 0 at the end."""
        if self._tls is not None:
            return self._sock.recv_into(view)
        # With room for the type the kernel gives any record; one without data is something, too.
        count, ancillary, _, _ = self._sock.recvmsg_into([view], socket.CMSG_SPACE(1))
        return count or bool(ancillary)

    def pending(self) -> int:
        """How many bytes were received and not read."""
        return 0 if self._tls is None else self._tls.pending()

    # Sending.

    def send(self, data: Data) -> int:
        """Send some of data; return how much."""
        self._sends += 1
        return self._below.send(data)

    def send_parts(self, parts: Sequence[Data]) -> int:
        """Send some of the parts, one after the other, with one system call; return how many bytes."""
        self._sends += 1
        return self._below.send_parts(parts)

    # Bytes that are held back for those that follow would wait for ever if none did.
    send_ahead = send

    def end(self) -> None:
        """Tell the peer that nothing more will come; reading goes on.

        The last record may still be in the kernel, and would be lost if we closed: this waits until it is sent.
        """
        self._below.prepare()
        with contextlib.suppress(OSError):
            self._alert(controls.CLOSE_NOTIFY)

    def _alert(self, alert: bytes, flags: int = 0) -> None:
        self._sock.sendmsg([alert], controls.ancillary(controls.Record.ALERT), flags)

    def is_worn(self, sent: int) -> bool:
        """Return True if so many bytes, with what the calls were, are as much as one key should encrypt."""
        return self._sends + sent // controls.RECORD >= self._limit

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        if self._tls is not None:
            self._tls.release()
        self._below.close()
