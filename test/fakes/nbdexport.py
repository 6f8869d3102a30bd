"""Our NBD server on a Unix socket, without HTTP before it.

with Exporting(lambda: MemoryBackend(data)) as exporting:
    connect(exporting.location)
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional

from fakes.waiting import DEADLINE

from ovirt_imageio.backends.base import Backend
from ovirt_imageio.nbd.address import Location, UnixAddress
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.wire import Command, ExportFlag
from ovirt_imageio.net.stream import Stream

FLAGS = (
    ExportFlag.HAS_FLAGS
    | ExportFlag.SEND_FLUSH
    | ExportFlag.SEND_FUA
    | ExportFlag.SEND_WRITE_ZEROES
    | ExportFlag.SEND_DF
    | ExportFlag.CAN_MULTI_CONN
)
CONTEXTS = ("base:allocation",)


class Failures:
    """The names of failures: those of the system."""

    def late(self, is_sending: bool, seconds: float) -> Exception:
        return TimeoutError(f"late by {seconds:g} seconds")

    def broken(self, is_sending: bool, reason: str) -> Exception:
        return ConnectionError(reason)

    def interrupted(self) -> Exception:
        return ConnectionAbortedError()


class SocketChannel:
    """A channel over a socket."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self.stream = Stream(sock, timeout, Failures())
        self.wait = self.readinto = self.stream.readinto
        self.send_parts = self.stream.send_parts


class Watching:
    """A watch that writes down what it is told."""

    def __init__(self) -> None:
        self.begun: list[tuple[Command, int, int]] = []
        self.counts: list[int] = []
        self.errors: list[Optional[BaseException]] = []

    def begin(self, command: Command, offset: int, length: int) -> None:
        """A request begins."""
        self.begun.append((command, offset, length))

    def moved(self, count: int) -> None:
        """More is done."""
        self.counts.append(count)

    def end(self, error: Optional[BaseException]) -> None:
        """It ended."""
        self.errors.append(error)

    def passed(self, command: int, offset: int, length: int) -> None:
        """Another server did it."""
        self.begin(Command(command), offset, length)
        self.errors.append(None)

    def under_way(self, has_changes: bool) -> None:
        """Another server has something to do."""


class Exporting:
    """Serves a disk on a Unix socket; `failures` are the errors that ended a connection.

    A client may stand still for `timeout` seconds.
    """

    def __init__(
        self,
        open_disk: Callable[[], Backend],
        flags: ExportFlag = FLAGS,
        contexts: Sequence[str] = CONTEXTS,
        can_extend: bool = True,
        timeout: float = DEADLINE,
    ) -> None:
        self._open_disk = open_disk
        self._flags = flags
        self._contexts = tuple(contexts)
        self._can_extend = can_extend
        self._timeout = timeout
        self.failures: list[Exception] = []
        self.watch = Watching()
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []
        self._scope = contextlib.ExitStack()
        self.path = ""

    def __enter__(self) -> Exporting:
        with contextlib.ExitStack() as scope:
            self.path = str(Path(scope.enter_context(tempfile.TemporaryDirectory(prefix="export-"))) / "sock")
            listening = scope.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(self.path)
            listening.listen()
            accepting = threading.Thread(target=self._accept, args=(listening,))
            accepting.start()
            scope.callback(accepting.join, DEADLINE)
            scope.callback(listening.shutdown, socket.SHUT_RDWR)
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._scope.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)

    @property
    def location(self) -> Location:
        """Where our client finds it."""
        return Location(UnixAddress(self.path), "")

    def connect(self) -> socket.socket:
        """Return a connection of a client that has not sent a byte."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(self.path)
        return sock

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listening.accept()
                self._socks.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.closing(self._open_disk()) as disk:
            offer = Offer(
                disk.size(), self._flags, contexts=dict(enumerate(self._contexts)), can_extend=self._can_extend
            )
            try:
                disk.attach(SocketChannel(sock, self._timeout), offer, self.watch)
            except Exception as error:
                self.failures.append(error)
