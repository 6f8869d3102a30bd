"""The service in this process, over one disk, with both listeners; and what must be the same after each request.

with House(folder, "file") as house:
    with house.connect("tls") as connection: ...
    house.settle()              # fails unless every thread, descriptor and use of the disk is gone
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Optional

from fakes.volatile import VolatileDisk, VolatileServer
from real import certificates
from torture import host

from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends import registry
from ovirt_imageio.backends.base import Backend, Options, Terms
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.httpd.listener import TcpAddress, UnixAddress
from ovirt_imageio.httpd.server import Server
from ovirt_imageio.net.eager import SHARED
from ovirt_imageio.net.tls import ServerContext
from ovirt_imageio.service import routes
from ovirt_imageio.service.metrics import Metrics

__all__ = ["BACKENDS", "CONTENT", "LISTENERS", "SIZE", "TICKET", "House", "Leftover", "descriptors", "wait_gone"]

# Three slots of the rings and pipes, and a bit.
SIZE = 2 * 1024**2 + 128 * 1024
CONTENT = bytes(range(251)) * (SIZE // 251) + bytes(SIZE % 251)

TICKET = "ticket"

BACKENDS = ("file", "nbd", "memory", "proxy")
LISTENERS = ("unix", "tls")

# For what takes a moment. What takes longer hangs.
PATIENCE = 15.0


class Leftover(AssertionError):
    """Something is there that should be gone."""


class House:
    """See the module."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.backend = backend
        self._folder = folder
        self._scope = contextlib.ExitStack()
        self._url = ""
        self._certificate = certificates.certificate()
        self.read: Callable[[], bytes] = bytes
        self.reset: Callable[[], None] = bytes

    def __enter__(self) -> House:
        with contextlib.ExitStack() as scope:
            self._url = scope.enter_context(getattr(self, f"_{self.backend}")())
            self.store = scope.enter_context(Store(self._open, max_connections=4))
            application = routes.images(self.store, Metrics(), None)
            self.path = str(self._folder / "sock")
            tls = ServerContext(self._certificate.cert_file, self._certificate.key_file)
            self._servers = {
                "unix": Server(UnixAddress(self.path), application),
                "tls": Server(TcpAddress("127.0.0.1", 0), application, tls=tls),
            }
            for server in self._servers.values():
                server.start()
                scope.callback(server.stop)
            self._context = ssl.create_default_context(cafile=self._certificate.ca_file)
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._scope.close()

    def begin(self) -> None:
        """Prepare for an operation: a disk as it was, and a new ticket."""
        self.reset()
        document = {"uuid": TICKET, "ops": ["write"], "timeout": 300, "size": SIZE, "url": "file:///disk"}
        self.store.add({**document, "sparse": False})

    def end(self) -> None:
        """Remove the ticket: fails if it is in use still."""
        self.store.remove(TICKET, PATIENCE)

    def remember(self) -> None:
        """Remember what is open now."""
        self._before = (descriptors(), set(threading.enumerate()), sorted(os.listdir(self._folder)))

    @contextlib.contextmanager
    def connect(self, listener: str) -> Iterator[http.client.HTTPConnection]:
        """Yield a connection of a client."""
        connection: http.client.HTTPConnection
        if listener == "tls":
            port = self._servers["tls"].port
            connection = http.client.HTTPSConnection("localhost", port, context=self._context, timeout=PATIENCE)
        else:
            connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(PATIENCE)
            connection.sock.connect(self.path)
        with contextlib.closing(connection):
            yield connection

    def wait(self) -> None:
        """Wait until all clients have left."""
        servers = self._servers.values()
        wait_gone(lambda: {server.name for server in servers if server.connections}, set(), "connections")

    def settle(self, patience: float = PATIENCE) -> None:
        """Fail with Leftover unless all is as it was when it was remembered."""
        files, threads, names = self._before
        wait_gone(lambda: set(threading.enumerate()), threads, "threads", patience)
        wait_gone(lambda: set(descriptors()), set(files), "descriptors", patience)
        if sorted(os.listdir(self._folder)) != names:
            raise Leftover(f"files: {os.listdir(self._folder)}")
        if SHARED.workers:
            raise Leftover(f"workers: {SHARED.workers}")

    def _open(self, ticket: Any, line: Any, traceparent: Optional[str]) -> Backend:
        if self.backend == "memory":
            return MemoryBackend(self._memory_disk, extents={"zero": [ZeroExtent(0, SIZE, False, False)]})
        options = Options(nbd_reply_timeout=PATIENCE, http_read_timeout=PATIENCE, ca_file=self._certificate.ca_file)
        return registry.open_backend(self._url, Terms(options, writable=True, line=line))

    # --- The disks ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _file(self) -> Iterator[str]:
        path = self._folder / "disk"
        path.write_bytes(CONTENT)
        self.read = path.read_bytes
        self.reset = functools.partial(_rewrite, path)
        yield f"file://{path}"

    @contextlib.contextmanager
    def _proxy(self) -> Iterator[str]:
        with (
            self._file(),
            host.running(str(self._folder / "disk"), self._certificate.cert_file, self._certificate.key_file) as port,
        ):
            yield f"https://localhost:{port}/images/{host.TICKET}"

    @contextlib.contextmanager
    def _nbd(self) -> Iterator[str]:
        disk = VolatileDisk(SIZE)

        def reset() -> None:
            disk.data[:] = CONTENT
            disk.log.clear()

        self.read = lambda: bytes(disk.data)
        self.reset = reset
        with VolatileServer(disk) as server:
            # Its threads and descriptors go when ours have gone.
            yield server.url

    @contextlib.contextmanager
    def _memory(self) -> Iterator[str]:
        self._memory_disk = bytearray(CONTENT)

        def reset() -> None:
            self._memory_disk[:] = CONTENT

        self.read = lambda: bytes(self._memory_disk)
        self.reset = reset
        yield "memory"


def wait_gone(look: Callable[[], set[Any]], before: set[Any], name: str, patience: float = PATIENCE) -> None:
    """Wait until nothing is there that was not there before. Raises Leftover."""
    deadline = time.monotonic() + patience
    while more := look() - before:
        if time.monotonic() > deadline:
            raise Leftover(f"{name}: {more}")
        time.sleep(0.0005)


def _rewrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(CONTENT)


def descriptors() -> dict[str, str]:
    """Return the open descriptors of this process, and what each is."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        # One of them was the folder itself.
        with contextlib.suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found
