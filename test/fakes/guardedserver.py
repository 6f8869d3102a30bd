"""A daemon that looks at what requests show before they get to a disk: the real server and store, over a Unix socket.

with GuardedServer(str(tmp_path / "sock"), store, door, {"/sessions/?": Opening(sessions)}) as server:
    answer = server.ask("GET", "/images/1", {"Authorization": "Bearer ..."})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from fakes.imageserver import Answer, Connection
from fakes.waiting import DEADLINE

from ovirt_imageio.auth.store import Store
from ovirt_imageio.handlers.doors import POLICY, Door, Guarded
from ovirt_imageio.handlers.extents import Extents
from ovirt_imageio.handlers.images import Images
from ovirt_imageio.handlers.status import translate
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.listener import UnixAddress
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.httpd.server import Server


class GuardedServer:
    """Serves /images of a store through a door, and what `others` name by their paths. See the module."""

    def __init__(self, path: str, store: Store, door: Door, others: Mapping[str, Any]) -> None:
        self.store = store
        application = Application(
            [
                ("/images/([^/]*)/extents", Guarded(Extents(store), [door])),
                ("/images/([^/]*)", Guarded(Images(store), [door])),
                *others.items(),
            ],
            translate=translate,
            cors=POLICY,
        )
        self.path = path
        self._server = Server(UnixAddress(path), application, limits=Limits(linger_timeout=DEADLINE))

    def __enter__(self) -> GuardedServer:
        self._server.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.stop()
        self.store.stop()

    def ask(self, method: str, path: str, headers: Optional[dict[str, str]] = None, body: Any = None) -> Answer:
        """Return the answer to a request over a connection of its own."""
        connection = Connection(self.path)
        try:
            return connection.ask(method, path, headers, body)
        finally:
            connection.close()
