"""A server: accepts connections, gives each one a thread, and ends them in an orderly way.

Knows nothing of requests: connections do.
"""

from __future__ import annotations

import logging
import select
import socket as sockets
import ssl
import threading
import time
from collections.abc import Iterable
from typing import Callable, Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.httpd.connection import Connection, Handler
from ovirt_imageio.httpd.door import Door, Guest, Tally
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.listener import Address, Listener, TcpAddress, UnixAddress, listen
from ovirt_imageio.httpd.observer import Observer
from ovirt_imageio.httpd.refusal import ClientGone, Refusal
from ovirt_imageio.httpd.stream import Stream, handshake, open_stream

__all__ = ["Server", "TlsProvider"]

log = logging.getLogger("http")

# Returns the context for the next handshake: a new one after the certificates were reloaded.
TlsProvider = Callable[[], ssl.SSLContext]

# This many clients over a limit are told so at once, each by a thread; more of them are cut off.
REFUSERS = 64

# When there are too many open files, wait for some to be closed.
PAUSE = 0.2

# An aborted connection ends as soon as its handler notices; one that hangs in storage is left behind.
JOIN_TIMEOUT = 5.0


class Server:
    """Serves an application on one address, from construction on; accepts connections from start() to stop().

        server = Server(TcpAddress("::", 54322), application, tls=lambda: context, name="remote.service")
        server.start()
        server.stop(grace=10)

    address: a TcpAddress, a UnixAddress, or a Listener that has its sockets already. The attribute `address` tells what
    is really used, say the port that the kernel picked; `listener` has the sockets.
    application: called with each request and its response, in the thread of the connection.
    tls: returns the context for a handshake, None for plain HTTP.

    Raises ListenError.

    Threads: start and stop by one at a time; `connections` by any.
    """

    def __init__(
        self,
        address: Union[Address, Listener],
        application: Handler,
        *,
        tls: Optional[TlsProvider] = None,
        limits: Limits = Limits(),  # noqa: B008  (it is frozen)
        observer: Optional[Observer] = None,
        name: str = "httpd",
    ) -> None:
        self.name = name
        self._application = application
        self._tls = tls
        self._limits = limits
        self._observer = observer or Observer()
        self._lock = threading.Lock()
        # Guarded by the lock. A thread leaves when its connection is closed.
        self._threads: dict[threading.Thread, Optional[Connection]] = {}
        # How many of them refuse a client.
        self._refusing = 0
        self._door = Door(limits)
        self._tally = Tally(time.monotonic)
        self._is_stopping = False
        self.listener: Listener = address if isinstance(address, Listener) else listen(address)
        self.address = self.listener.address
        self._waker, self._wakeup = sockets.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name=name, daemon=True)

    @property
    def port(self) -> int:
        """The TCP port; 0 for a Unix socket."""
        return self.address.port if isinstance(self.address, TcpAddress) else 0

    @property
    def path(self) -> str:
        """The path or abstract name of a Unix socket; empty for TCP."""
        return self.address.path if isinstance(self.address, UnixAddress) else ""

    @property
    def connections(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._threads)

    def start(self) -> None:
        """Accept connections."""
        log.info("Listening service=%s address=%s", self.name, self.address)
        self._acceptor.start()

    def stop(self, grace: float = 0) -> None:
        """Stop accepting, close idle connections, give running requests `grace` seconds, then cut them off.

        Returns when all threads have ended, but for those that hang in something that is not ours. Harmless when
        repeated, and before start().
        """
        with self._lock:
            if self._is_stopping:
                return
            self._is_stopping = True
        self._waker.send(b"x")
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self.listener.close()
        self._waker.close()
        self._wakeup.close()
        self._drain(grace)

    def _drain(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        for connection in self._connections():
            connection.is_stopping = True
            # One that reads its next request just now is cut as if the request had come a moment later.
            if not connection.is_new and not connection.is_busy:
                connection.abort()
        # The client of a new one knows nothing of a stop: its first request is answered if it comes at once.
        self._join(min(grace, self._limits.newcomer_grace))
        for connection in self._connections():
            if not connection.is_busy:
                connection.abort()
        self._join(deadline - time.monotonic())
        for connection in self._connections():
            if not connection.is_aborted:
                log.warning("Cutting off connection=%s client=%s", connection.id, connection.client)
                connection.abort()
        for thread in self._join(JOIN_TIMEOUT):
            log.warning("The thread %s does not end", thread.name)

    def _connections(self) -> list[Connection]:
        with self._lock:
            return [connection for connection in self._threads.values() if connection is not None]

    def _join(self, timeout: float) -> list[threading.Thread]:
        with self._lock:
            threads = list(self._threads)
        return join(threads, timeout)

    # The accepting thread.

    def _accept(self) -> None:
        """Accept until another thread wakes us up."""
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        listening = {sock.fileno(): sock for sock in self.listener.sockets}
        for descriptor in listening:
            poller.register(descriptor, select.POLLIN)
        while True:
            left = self._tally.left()
            ready = [descriptor for descriptor, _ in poller.poll(None if left is None else left * 1000 + 1)]
            self._tally.tell()
            if self._wakeup.fileno() in ready:
                return
            for descriptor in ready:
                self._accept_one(listening[descriptor])

    def _accept_one(self, listening: sockets.socket) -> None:
        try:
            sock, peer = listening.accept()
        except (BlockingIOError, ConnectionError):
            # The client was faster to leave.
            return
        except OSError as error:
            log.error("Cannot accept connections: %s; the limit of open files may be too low", error)
            self._pause()
            return
        client = "local" if sock.family == sockets.AF_UNIX else str(peer[0])
        guest = Guest(client)
        refusal = self._door.enter(guest, time.monotonic())
        if refusal is not None:
            self._tally.note(client, refusal.text)
            with self._lock:
                if self._refusing >= REFUSERS:
                    sock.close()
                    return
                self._refusing += 1
        thread = threading.Thread(target=self._run, args=(guest, sock, refusal), daemon=True)
        with self._lock:
            self._threads[thread] = None
        try:
            thread.start()
        except RuntimeError as error:
            log.error("Cannot start a thread for client=%s: %s", client, error)
            self._forget(thread, guest, refusal)
            sock.close()

    def _forget(self, thread: threading.Thread, guest: Guest, refusal: Optional[Refusal]) -> None:
        """Note that the thread of a guest ends."""
        with self._lock:
            del self._threads[thread]
            self._refusing -= refusal is not None
        if refusal is None:
            self._door.leave(guest)

    def _pause(self) -> None:
        """Wait for better times, or for stop()."""
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        poller.poll(PAUSE * 1000)

    # The threads of connections.

    def _run(self, guest: Guest, sock: sockets.socket, refusal: Optional[Refusal]) -> None:
        """Live the life of one connection."""
        try:
            with sock:
                self._open(guest, sock, refusal)
        except Exception:
            log.exception("A connection failed client=%s", guest.client)
        finally:
            self._forget(threading.current_thread(), guest, refusal)

    def _open(self, guest: Guest, sock: sockets.socket, refusal: Optional[Refusal]) -> None:
        client = guest.client
        if sock.family != sockets.AF_UNIX:
            # A small response must not wait for the acknowledgement of the one before.
            sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        stream = open_stream(sock, self._limits.io_timeout)
        connection = Connection(stream, client, self._limits)
        thread = threading.current_thread()
        thread.name = f"connection-{connection.id}"
        with self._lock:
            self._threads[thread] = connection
            connection.is_stopping = self._is_stopping
        guest.connection = connection
        # A line for each refusal only helps to debug; else the tally tells.
        level = logging.INFO if refusal is None else logging.DEBUG
        log.log(level, "OPEN connection=%s client=%s", connection.id, client)
        self._observer.connection_opened(connection)
        connection.clock.start("connection")
        try:
            if self._secure(connection, stream, logging.WARNING if refusal is None else logging.DEBUG):
                if refusal is None:
                    connection.serve(self._application)
                else:
                    connection.refuse(refusal, logging.DEBUG)
        finally:
            connection.close()
            connection.clock.stop("connection")
            self._observer.connection_closed(connection)
            tls = f" tls={stream.encryption}" if stream.is_tls else ""
            log.log(level, "CLOSE connection=%s client=%s%s %s", connection.id, client, tls, connection.clock)

    def _secure(self, connection: Connection, stream: Stream, level: int) -> bool:
        """Do the TLS handshake, if there is one to do; return False if the client is not worth more of our time."""
        if self._tls is None:
            return True
        try:
            return handshake(stream, self._tls(), self._limits.handshake_timeout)
        except Refusal as refusal:
            connection.refuse(refusal, level)
        except errors.OperationCanceled as error:
            # It made room for another client, or the server stops.
            log.debug("%s connection=%s client=%s", error, connection.id, connection.client)
        except ClientGone as error:
            log.log(level, "%s connection=%s client=%s", error, connection.id, connection.client)
        return False


def join(threads: Iterable[threading.Thread], timeout: float) -> list[threading.Thread]:
    """Wait until the threads end; return those that still run after the time-out."""
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]
