"""Which URL is answered by whom, on which listener.

    /images/{id}/extents              remote local
    /images/{id}/checksum/algorithms  remote local
    /images/{id}/checksum             remote local
    /images/{id}                      remote local
    /info                             remote local control
    /sessions                         remote            if enabled
    /tickets/{id}                                  control
    /profile/                                      control
    /metrics                                       control

Knows no sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from ovirt_imageio.auth.store import Store
from ovirt_imageio.handlers import status
from ovirt_imageio.handlers.checksum import Algorithms, Checksum
from ovirt_imageio.handlers.extents import Extents
from ovirt_imageio.handlers.images import Images
from ovirt_imageio.handlers.info import Info
from ovirt_imageio.httpd import cors
from ovirt_imageio.httpd.observer import Observer
from ovirt_imageio.httpd.router import Application

__all__ = ["control", "images"]

Routes = Sequence[tuple[str, object]]

# The slash at the end is optional: one document wrote it, another one did not.
INFO: Routes = [("/info/?", Info())]


def images(store: Store, observer: Observer, unix_socket: Optional[str], more: Routes = ()) -> Application:
    """Return what the remote and the local listener serve; `more` comes on top.

    unix_socket: where clients on this host are better off.
    """
    routes: Routes = [
        ("/images/(.*)/extents", Extents(store)),
        ("/images/(.*)/checksum/algorithms", Algorithms()),
        ("/images/(.*)/checksum", Checksum(store)),
        ("/images/(.*)", Images(store, unix_socket)),
        *INFO,
        *more,
    ]
    # The engine's web pages upload and download.
    return Application(routes, translate=status.translate, cors=cors.Policy(), observer=observer)


def control(store: Store, observer: Observer, more: Routes = ()) -> Application:
    """Return what the control listener serves; `more` comes on top. No page of a browser has any business there."""
    return Application([*INFO, *more], translate=status.translate, observer=observer)
