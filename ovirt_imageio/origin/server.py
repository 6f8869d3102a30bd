"""The server of a transfer URL, as a proxy sees it: connects, keeps an idle connection, repeats what may be repeated.

Knows HTTP requests; knows nothing of disks, tickets and the requests that we serve ourselves.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlsplit

from ovirt_imageio import errors
from ovirt_imageio.net import tls
from ovirt_imageio.net.connect import Address, connect
from ovirt_imageio.net.distance import round_trip
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.timeouts import is_timeout
from ovirt_imageio.origin.connection import Data, Lost, Peer
from ovirt_imageio.origin.reply import Reply
from ovirt_imageio.origin.tunnel import open_tunnel
from ovirt_imageio.origin.upload import Upload
from ovirt_imageio.origin.url import without_secrets

__all__ = ["Approach", "Origin"]

log = logging.getLogger("origin")

# Up to here one system call for head and body is cheaper than two.
JOIN_LIMIT = 16 * 1024


@dataclass(frozen=True)
class Approach:
    """How a server is reached, and what it is shown: the same for all connections to it.

    `context` decides which https servers are trusted; without one they are verified with what the system trusts. A
    connection must stand within `connect_timeout` seconds, and no answer may stand still for more than `read_timeout`.
    `tunnel` is the proxy of the network on the way to an https server. `token` is a signed ticket, which each request
    shows.
    """

    context: Optional[ssl.SSLContext] = None
    connect_timeout: float = 10
    read_timeout: float = 60
    tunnel: Optional[tuple[str, int]] = None
    token: Optional[str] = None


class Origin:
    """The server of one URL.

    Errors: errors.BackendUnavailable if the server cannot be reached, errors.BackendUntrusted if it cannot be trusted
    or does not talk HTTP, errors.BackendTimeout, and errors.OperationCanceled after `interrupt`, or when `line` was
    cut: a thread that waits for a connection holds that.

    Threads: one at a time, but for `interrupt` and `wake`.
    """

    def __init__(self, url: str, approach: Approach, line: Lifeline) -> None:
        parts = urlsplit(url)
        self._approach = approach
        self._context = (approach.context or tls.client_context()) if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        try:
            self._port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as e:
            raise errors.InvalidValue("port", without_secrets(url), "a number") from e
        self._netloc = parts.netloc
        self._path = parts.path
        self._tunnel = approach.tunnel if self._context else None
        # The value of that header in each request, when set.
        self.traceparent: Optional[str] = None
        # When set, the way to the server on this very host.
        self._unix_socket: Optional[str] = None
        self._unsent_limit: Optional[int] = None
        self._idle: Optional[Peer] = None
        # Of the last connection, in seconds: a round trip as the kernel measured it, and the handshake if it has TLS.
        self.line = self.handshake = 0.0
        self._line = line
        # Guards what follows: interrupt() comes from other threads.
        self._lock = threading.Lock()
        self._peers: set[Peer] = set()

    @property
    def is_same_host(self) -> bool:
        """True if the server is known to run on this very host."""
        return self._tunnel is None and self._idle is not None and self._idle.is_same_host

    @property
    def transport(self) -> str:
        """Return what the bytes pass: "unix", "tls" or "tcp"."""
        if self._unix_socket is not None:
            return "unix"
        return "tls" if self._context else "tcp"

    def request(
        self,
        operation: str,
        method: str,
        suffix: str = "",
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[Data] = None,
        is_patient: bool = False,
    ) -> Reply:
        """Send a request that may be repeated, with all of its body, and return the reply.

        Over an idle connection that the server dropped meanwhile, it is sent once more over a new one. The answer may
        take for ever if `is_patient`.
        """
        head = self.head(method, suffix, headers, None if body is None else len(body))
        body = body or b""
        peer = self._take_idle()
        if peer is not None:
            try:
                peer.begin(operation, is_patient)
                return self._exchange(peer, method, head, body)
            except Lost as e:
                if not e.is_unheard:
                    raise
                log.debug("The image server dropped an idle connection: %s", e)
        peer = self._connect(operation)
        peer.begin(operation, is_patient)
        return self._exchange(peer, method, head, body)

    def upload(self, operation: str, suffix: str, headers: Mapping[str, str], length: Optional[int]) -> Upload:
        """Begin a PUT of `length` bytes that cannot be repeated; None if the length is not known yet."""
        peer = self._take_idle() or self._connect(operation)
        try:
            peer.begin(operation)
            if length is None:
                headers = {**headers, "transfer-encoding": "chunked"}
            peer.send(self.head("PUT", suffix, headers, length))
            return Upload(peer, self.release, is_chunked=length is None)
        except BaseException:
            self.release(peer, False)
            raise

    def acquire(self, operation: str) -> Peer:
        """Return a connection for requests of the caller's own; `release` takes it back."""
        peer = self._take_idle() or self._connect(operation)
        peer.begin(operation)
        return peer

    def ready(self, operation: str) -> None:
        """Have a connection for the next request, so that it takes no longer than the way there and back."""
        self._idle = self._take_idle() or self._connect(operation)

    def use_unix_socket(self, path: Optional[str]) -> None:
        """Reach the server through this Unix socket from now on, or over the network again."""
        self._unix_socket = path
        self._drop_idle()

    def limit_unsent(self, limit: int) -> None:
        """Let send calls wait while about so many bytes are in the kernel that TCP may not send yet.

        Otherwise the kernel takes megabytes for a connection that moves little, and they are not there for others.
        """
        self._unsent_limit = limit
        with self._lock:
            for peer in self._peers:
                peer.limit_unsent(limit)

    def interrupt(self) -> None:
        """Make whatever blocks fail, now and later. Threads: any."""
        self._line.cut()
        self.wake()

    def wake(self) -> None:
        """Make what blocks on a connection that stands fail; the rest holds the line. Never blocks. Threads: any."""
        with self._lock:
            for peer in self._peers:
                peer.interrupt()

    def close(self) -> None:
        """Close all connections, also those of replies that were not read to the end."""
        self._idle = None
        with self._lock:
            peers, self._peers = self._peers, set()
        for peer in peers:
            peer.close()

    def release(self, peer: Peer, is_reusable: bool) -> None:
        """Take back a connection that a reply or an upload is done with."""
        if is_reusable and not peer.stream.is_worn and self._idle is None and peer in self._peers:
            self._idle = peer
        else:
            with self._lock:
                self._peers.discard(peer)
            peer.close()

    def _exchange(self, peer: Peer, method: str, head: bytes, body: Data) -> Reply:
        try:
            is_sent = self._send(peer, head, body)
            # After half a request the connection is good for nothing else.
            reply = Reply(peer, method, self.release if is_sent else self._release_cut)
            if not is_sent and reply.status < 400:
                raise peer.protocol_error(f"status {reply.status} before the end of the request")
            return reply
        except BaseException:
            self.release(peer, False)
            raise

    def _send(self, peer: Peer, head: bytes, body: Data) -> bool:
        """Send a request; return False if the server answered before it got everything."""
        try:
            if len(body) <= JOIN_LIMIT:
                peer.send(head + bytes(body))
                return True
            peer.send(head)
            return peer.send_unless_heard(body)
        except Lost:
            # A server that refuses a body tells why before it leaves.
            if not peer.has_input():
                raise
            return False

    def _release_cut(self, peer: Peer, is_reusable: bool) -> None:
        self.release(peer, False)

    def _take_idle(self) -> Optional[Peer]:
        peer, self._idle = self._idle, None
        if peer is not None and peer.has_input():
            # Between requests a server has nothing to say but farewell.
            self.release(peer, False)
            return None
        return peer

    def _drop_idle(self) -> None:
        peer, self._idle = self._idle, None
        if peer is not None:
            self.release(peer, False)

    def _connect(self, operation: str) -> Peer:
        try:
            return self._register(self._dial())
        except (OSError, UnicodeError) as e:  # A name may be no host name at all.
            raise errors.OperationCanceled() if self._line.is_cut else connect_error(operation, e) from e

    def _dial(self) -> Peer:
        if self._unix_socket is not None:
            try:
                return self._peer(self._unix_socket, None)
            except OSError as e:
                self._line.check()
                log.warning("The Unix socket of the image server does not answer, going on over TCP: %s", e)
                self._unix_socket = None
        return self._peer(self._tunnel or (self._host, self._port), self._context)

    def _peer(self, address: Address, context: Optional[ssl.SSLContext]) -> Peer:
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(connect(address, self._approach.connect_timeout, self._line))
            if context is not None:
                with self._line.holding(sock):
                    if self._tunnel is not None:
                        open_tunnel(sock, self._host, self._port, self._approach.connect_timeout)
                    peer = Peer(sock, self._approach.read_timeout)
                    began = time.monotonic()
                    peer.start_tls(context, self._host, self._approach.connect_timeout)
                    self.handshake = time.monotonic() - began
            else:
                peer = Peer(sock, self._approach.read_timeout)
                self.handshake = 0.0
            self.line = round_trip(sock)
            stack.pop_all()
            return peer

    def _register(self, peer: Peer) -> Peer:
        with self._lock:
            self._peers.add(peer)
            if self._unsent_limit is not None:
                peer.limit_unsent(self._unsent_limit)
            if self._line.is_cut:
                peer.interrupt()
        return peer

    def head(self, method: str, suffix: str, headers: Optional[Mapping[str, str]], length: Optional[int]) -> bytes:
        """Return the head of a request whose body has `length` bytes; None if it has no body."""
        lines = [f"{method} {self._path}{suffix} HTTP/1.1", f"host: {self._netloc}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if self._approach.token is not None:
            lines.append(f"authorization: Bearer {self._approach.token}")
        if self.traceparent is not None:
            lines.append(f"traceparent: {self.traceparent}")
        if length is not None:
            lines.append(f"content-length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def connect_error(operation: str, error: Exception) -> errors.Error:
    """Return our error for one that kept us from the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"the certificate of the image server cannot be trusted: {error.verify_message}"
        return errors.BackendUntrusted(operation, reason)
    if isinstance(error, OSError) and is_timeout(error):
        return errors.BackendTimeout(operation, "the image server cannot be reached in time")
    if isinstance(error, ssl.SSLError):
        reason = f"the image server does not speak TLS with us: {error.reason or error}"
        return errors.BackendUntrusted(operation, reason)
    reason = getattr(error, "strerror", None) or str(error)
    return errors.BackendUnavailable(operation, f"the image server cannot be reached: {reason}")
