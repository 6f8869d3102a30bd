"""The images API over disks in memory: the real server, the real store of tickets, and a client for raw requests.

with ImageServer(tmp_path) as server:
    server.add("ticket", bytearray(b"x" * 1000), ops=["write"])
    answer = server.request("GET", "/images/ticket", {"range": "bytes=0-9"})

A ProxyServer looks the same from outside, but has the disks from another server.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Any, NamedTuple, Optional

from fakes.waiting import DEADLINE

from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends.http import HttpBackend
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.handlers.checksum import Algorithms, Checksum
from ovirt_imageio.handlers.extents import Extents
from ovirt_imageio.handlers.images import Images
from ovirt_imageio.handlers.info import Info
from ovirt_imageio.handlers.status import translate
from ovirt_imageio.httpd.cors import Policy
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.listener import TcpAddress, UnixAddress
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.httpd.server import Server
from ovirt_imageio.origin.image import Image


class Answer(NamedTuple):
    """What came back; `closed` tells that the server closed the connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool = False

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, headers: Optional[dict[str, str]] = None, body: Any = None) -> Answer:
        self.request(method, path, body, headers or {})
        response = self.getresponse()
        data = response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, data, response.will_close)


class ImageServer:
    """See the module."""

    def __init__(
        self, tmp_path: Any, unix_socket: Optional[str] = None, *, port: Optional[int] = None, **store_options: Any
    ) -> None:
        self.disks: dict[str, Any] = {}
        self.opened = 0
        self.store = Store(self._open, **store_options)
        application = Application(
            [
                (r"/images/([^/]*)/extents", Extents(self.store)),
                (r"/images/([^/]*)/checksum/algorithms", Algorithms()),
                (r"/images/([^/]*)/checksum", Checksum(self.store)),
                (r"/images/([^/]*)", Images(self.store, unix_socket)),
                (r"/info/?", Info()),
            ],
            translate=translate,
            cors=Policy(),
        )
        self.path = str(tmp_path / "images.sock")
        address = UnixAddress(self.path) if port is None else TcpAddress("127.0.0.1", port)
        self._server = Server(address, application, limits=Limits(linger_timeout=DEADLINE))

    def __enter__(self) -> ImageServer:
        self.store.__enter__()
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop()
        self.store.__exit__(None, None, None)

    def add(self, ticket_id: str, disk: Any = b"", **ticket: Any) -> Any:
        """Add a ticket for a disk: bytes, a bytearray that is shared, or a callable that makes a backend."""
        self.disks[ticket_id] = disk
        document = {"uuid": ticket_id, "ops": ["read"], "timeout": 300, "url": "file:///disk", **ticket}
        if "size" not in document:
            document["size"] = len(disk)
        return self.store.add(document)

    @contextlib.contextmanager
    def connect(self) -> Any:
        """Yield a connection that is kept alive."""
        connection = Connection(self.path)
        try:
            yield connection
        finally:
            connection.close()

    def request(self, method: str, path: str, headers: Optional[dict[str, str]] = None, body: Any = None) -> Answer:
        """Send one request over a connection of its own."""
        with self.connect() as connection:
            answer: Answer = connection.ask(method, path, headers, body)
            return answer

    def url(self, ticket_id: str) -> str:
        """Return the transfer URL of a ticket; only if it was given a port."""
        return f"http://127.0.0.1:{self._server.port}/images/{ticket_id}"

    def _open(self, ticket: Any, line: Any, traceparent: Optional[str]) -> Any:
        self.opened += 1
        disk = self.disks[ticket.uuid]
        return disk() if callable(disk) else MemoryBackend(disk, writable=ticket.can("write"))


class ProxyServer(ImageServer):
    """A server that has its disks from another one, `origin`, as a proxy has them from hosts."""

    def __init__(self, tmp_path: Any, unix_socket: Optional[str] = None, **store_options: Any) -> None:
        super().__init__(tmp_path, unix_socket, **store_options)
        self.origin = ImageServer(tmp_path, port=0)

    def __enter__(self) -> ProxyServer:
        self.origin.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self.origin.__exit__(*exc_info)

    def add(self, ticket_id: str, disk: Any = b"", **ticket: Any) -> Any:
        """Add a ticket to both."""
        self.origin.add(ticket_id, disk, **ticket)
        return super().add(ticket_id, disk, **ticket)

    def _open(self, ticket: Any, line: Any, traceparent: Optional[str]) -> Any:
        self.opened += 1
        url = self.origin.url(ticket.uuid)
        return HttpBackend(Image(url, line=line), writable=ticket.can("write"), dirty=ticket.dirty)
