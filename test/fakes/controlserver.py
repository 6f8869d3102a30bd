"""The control service over fake disks: the real server, the real store, and raw bytes.

with ControlServer(tmp_path) as server:
    with server.client() as client:
        answer = client.get("/tickets/1")
"""

from __future__ import annotations

from typing import Any

from fakes.connections import Backends
from fakes.raw_client import RawClient, connect
from fakes.waiting import DEADLINE

from ovirt_imageio.auth.store import Store
from ovirt_imageio.handlers.images import Images
from ovirt_imageio.handlers.metrics import MetricsPage
from ovirt_imageio.handlers.profile import Profile
from ovirt_imageio.handlers.status import translate
from ovirt_imageio.handlers.tickets import TicketList, Tickets
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.listener import Address, TcpAddress, UnixAddress
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.httpd.server import Server
from ovirt_imageio.service.metrics import Metrics


class ControlServer:
    """Serves /tickets, /metrics, /profile, and /images to have something to look at. See the module."""

    def __init__(
        self,
        tmp_path: Any,
        *,
        tcp: bool = False,
        remove_timeout: float = DEADLINE,
        profiler: Any = None,
        open_backend: Any = None,
        **options: Any,
    ) -> None:
        self.backends = Backends()
        self.metrics = Metrics()
        self.store = Store(open_backend or self.backends, observer=self.metrics, **options)
        self.metrics.watch(self.store)
        application = Application(
            [
                ("/tickets", TicketList(self.store)),
                ("/tickets/(.*)", Tickets(self.store, remove_timeout)),
                ("/metrics", MetricsPage(self.metrics.registry)),
                ("/profile/?", Profile(profiler)),
                ("/images/(.*)", Images(self.store)),
            ],
            translate=translate,
            observer=self.metrics,
        )
        address: Address = TcpAddress("localhost", 0) if tcp else UnixAddress(str(tmp_path / "control.sock"))
        self._server = Server(address, application, limits=Limits(linger_timeout=DEADLINE), observer=self.metrics)
        self.path = self._server.path
        self.port = self._server.port

    def __enter__(self) -> ControlServer:
        self.store.start()
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.store.stop()
        self._server.stop()

    def stop(self, grace: float) -> None:
        """Stop the server, but not the store."""
        self._server.stop(grace)

    def client(self) -> RawClient:
        """Return a new connection."""
        return connect(self._server)
