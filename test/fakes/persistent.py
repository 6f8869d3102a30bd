"""A client that writes and reads a disk of its own, and sends again what was cut, as curl --retry does."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import threading
from pathlib import Path
from typing import Any, Optional, Protocol

__all__ = ["CUT", "PersistentClient", "ask"]

# How a client sees that its connection was cut.
CUT = (http.client.HTTPException, ConnectionError, ssl.SSLError)


class Server(Protocol):
    """What has an address that stays, whatever happens to its process."""

    def connect(self) -> http.client.HTTPConnection: ...

    def add_ticket(self, *, url: str, size: int, **fields: Any) -> str: ...


def ask(
    server: Server, method: str, url: str, body: Optional[bytes] = None, **headers: str
) -> tuple[int, bytes, Optional[str]]:
    """Send a request over a new connection; return status, body and tag."""
    with contextlib.closing(server.connect()) as connection:
        connection.request(method, "/images/" + url.rpartition("/")[2], body, headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers["etag"]


class PersistentClient(threading.Thread):
    """Writes other data, and reads it, until it is told to end.

    What went wrong is in `faults`: a connection that was refused, an answer that is final, a byte that is wrong.
    """

    def __init__(self, server: Server, path: Path, size: int, is_over: threading.Event) -> None:
        super().__init__(name=f"client of {path.name}")
        path.write_bytes(bytes(size))
        self.path = path
        self.url = server.add_ticket(url=f"file://{path}", size=size)
        self.rounds = self.cuts = 0
        self.faults: list[str] = []
        self._server, self._size, self._is_over = server, size, is_over

    def run(self) -> None:
        while not self._is_over.is_set() and not self.faults:
            data = os.urandom(self._size)
            for method, body, expected in (("PUT", data, b""), ("GET", None, data)):
                status, found = self._persist(method, body)
                if (status, found) != (200, expected):
                    self.faults.append(f"{method}: {status}, {len(found)} bytes")
            self.rounds += 1

    def _persist(self, method: str, body: Optional[bytes]) -> tuple[int, bytes]:
        """Send a request until it is not cut; return status and body."""
        while True:
            try:
                status, found, _ = ask(self._server, method, self.url, body)
            except ConnectionRefusedError:
                return 0, b"refused"
            except CUT:
                status, found = 503, b""
            if status != 503:
                return status, found
            self.cuts += 1
