"""The disks whose history is taken: each behind a server, with clients that reach it.

with served("nbd-qcow2", folder) as served:
    served.makers       # of clients, over HTTP and NBD
    served.remove()     # takes the ticket away, and adds it again
    served.kill()       # ends a process, and starts it again
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable

from fakes.imageserver import Connection, ImageServer, ProxyServer
from fakes.waiting import DEADLINE
from history.checker import BLOCK
from history.clients import Client, HttpClient, NbdClient, Recorder
from real import certificates, daemon, storage

from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

__all__ = ["DAEMON", "KINDS", "MEMORY", "InMemory", "Served", "served"]

# Several pages, few enough for clients to meet.
BLOCKS = 32
SIZE = BLOCKS * BLOCK

MEMORY = ("memory", "memory-proxy")
DAEMON = ("nbd-raw", "nbd-qcow2", *storage.FILE, *storage.BLOCK, "proxy")
KINDS = (*MEMORY, *DAEMON)

TICKET = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"
PATH = f"/images/{TICKET}"

Maker = Callable[[random.Random], Client]


class Served:
    """A disk that clients can reach."""

    # Processes that can be killed.
    victims: Sequence[str] = ()

    def __init__(self) -> None:
        self.recorder = Recorder(BLOCKS)

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection; the caller closes it."""
        raise NotImplementedError

    def connect_remote(self) -> http.client.HTTPConnection:
        """Return another kind of connection, if there is one."""
        return self.connect()

    def remove(self) -> None:
        """Take the ticket away, and add it again."""
        raise NotImplementedError

    def kill(self, victim: str) -> None:
        """Kill a process, and start it again."""
        raise NotImplementedError

    @property
    def makers(self) -> list[Maker]:
        """Makers of clients: two of each kind."""
        kinds = [
            lambda dice: HttpClient(self.recorder, dice, self.connect, PATH),
            lambda dice: HttpClient(self.recorder, dice, self.connect_remote, PATH),
            lambda dice: NbdClient(self.recorder, dice, self._socket, PATH),
        ]
        return [*kinds, *kinds]

    def _socket(self) -> socket.socket:
        connection = self.connect()
        connection.connect() if connection.sock is None else None
        return connection.sock


class InMemory(Served):
    """A disk in memory, behind a server in this process, and perhaps behind another one."""

    def __init__(self, server: ImageServer, make: Callable[[bytearray], MemoryBackend] = MemoryBackend) -> None:
        super().__init__()
        self._server = server
        disk = bytearray(SIZE)
        self._make = lambda: make(disk)
        self._add()

    def connect(self) -> http.client.HTTPConnection:
        return Connection(self._server.path)

    def remove(self) -> None:
        servers = [self._server]
        if isinstance(self._server, ProxyServer):
            servers.append(self._server.origin)
        for server in servers:
            server.store.remove(TICKET, DEADLINE)
        self.recorder.settle()
        self._add()

    def _add(self) -> None:
        self._server.add(TICKET, self._make, size=SIZE, ops=["read", "write"])


class OnHost(Served):
    """A disk behind a real daemon, which may have it from a qemu-nbd, and perhaps behind a proxy."""

    def __init__(self, stack: contextlib.ExitStack, kind: str, folder: Path) -> None:
        super().__init__()
        self._stack = stack
        self._kind = kind
        self._qemu: QemuNbd | None = None
        self.victims = ("host",)
        if kind.startswith("nbd"):
            self._start_qemu(kind.partition("-")[2], folder)
        elif kind == "proxy":
            self._url = f"file://{self._make_file(str(folder / 'disk'))}"
            self.victims = ("host", "proxy")
        else:
            self._url = f"file://{self._make_file(stack.enter_context(storage.using(kind)).path)}"
        self._folders = {"host": folder / "host", "proxy": folder / "proxy"}
        self._scopes: dict[str, contextlib.ExitStack] = {}
        self._daemons: dict[str, daemon.Daemon] = {}
        for name in self._names:
            self._folders[name].mkdir()
            self._run(name)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("host", "proxy") if self._kind == "proxy" else ("host",)

    def connect(self) -> http.client.HTTPConnection:
        running = self._daemons[self._names[-1]]
        return running.connect_unix(running.local_socket)

    def connect_remote(self) -> http.client.HTTPConnection:
        return self._daemons[self._names[-1]].connect()

    def remove(self) -> None:
        for name in reversed(self._names):
            status, body = self._daemons[name].control("DELETE", f"/tickets/{TICKET}")
            assert status == 204, body
        # Its last request to the storage has ended.
        self.recorder.settle()
        for name in self._names:
            self._add(name)

    def kill(self, victim: str) -> None:
        if victim == "qemu-nbd":
            assert self._qemu is not None
            os.kill(self._qemu.pid, signal.SIGKILL)
            self.recorder.crashed()
            self._qemu.stop()
            self.recorder.settle()
            self._qemu.start()
            return
        self._daemons[victim].process.kill()
        self._daemons[victim].process.wait(DEADLINE)
        self._scopes[victim].close()
        if self._qemu is None and self._kind != "proxy":
            self.recorder.settle()
        self._run(victim)

    def _run(self, name: str) -> None:
        text = f"[backend_http]\nca_file = {certificates.authority().cert_file}\n" if name == "proxy" else ""
        if self._kind == "proxy" and name == "host" and name in self._daemons:
            # The proxy goes on with the address that it knows.
            text += f"[remote]\nport = {self._daemons[name].port}\n"
        self._scopes[name] = scope = self._stack.enter_context(contextlib.ExitStack())
        self._daemons[name] = scope.enter_context(daemon.running(self._folders[name], text))
        self._add(name)

    def _add(self, name: str) -> None:
        url = self._url if name == "host" else f"https://localhost:{self._daemons['host'].port}{PATH}"
        self._daemons[name].add_ticket(TICKET, url=url, size=SIZE, inactivity_timeout=60)

    def _start_qemu(self, format: str, folder: Path) -> None:
        path = str(folder / "image")
        img.create(path, format, SIZE)
        self._qemu = QemuNbd(path, format, listen=str(folder / "nbd"), cache="writeback", aio="threads", shared=0)
        self._stack.enter_context(self._qemu)
        self._url = self._qemu.url
        self.victims = ("host", "qemu-nbd")

    def _make_file(self, path: str) -> str:
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.truncate(SIZE)
        return path


@contextlib.contextmanager
def served(kind: str, folder: Path) -> Iterator[Served]:
    """Serve a disk of a kind. Raises storage.Missing if this system does not have it."""
    with contextlib.ExitStack() as stack:
        if kind in MEMORY:
            server = (ImageServer if kind == "memory" else ProxyServer)(folder)
            yield InMemory(stack.enter_context(server))
        else:
            yield OnHost(stack, kind, folder)
