"""Which URL is answered by which resource, on which listener.

    /images/{id}/extents              remote local
    /images/{id}/checksum/algorithms  remote local
    /images/{id}/checksum             remote local
    /images/{id}                      remote local
    /view                             remote local                 when the page is enabled
    /info                             remote local control metrics
    /sessions  /sessions/{id}         remote                 when they are enabled
    /tickets  /tickets/{id}                        control
    /profile/                                      control
    /metrics                                       control metrics
    /health                                                metrics

Knows no sockets and no configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

from ovirt_imageio.auth.store import Store
from ovirt_imageio.handlers import sessions as by_session
from ovirt_imageio.handlers import signed as by_token
from ovirt_imageio.handlers import status
from ovirt_imageio.handlers.browser import refuse_pages
from ovirt_imageio.handlers.checksum import Algorithms, Checksum
from ovirt_imageio.handlers.doors import Door, Guarded
from ovirt_imageio.handlers.extents import Extents
from ovirt_imageio.handlers.health import Health
from ovirt_imageio.handlers.images import Images
from ovirt_imageio.handlers.info import Info
from ovirt_imageio.handlers.metrics import MetricsPage
from ovirt_imageio.handlers.profile import Profile, Profiler
from ovirt_imageio.handlers.sessions import Closing, Opening
from ovirt_imageio.handlers.tickets import TicketList, Tickets
from ovirt_imageio.handlers.view import View
from ovirt_imageio.httpd import cors
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.service.metrics import Metrics
from ovirt_imageio.sessions.sessions import Sessions
from ovirt_imageio.sessions.signed import SignedTickets

__all__ = ["control", "images", "numbers", "with_sessions"]

Routes = Sequence[tuple[str, object]]

# The slash at the end is optional: some clients write it, others do not.
INFO = ("/info/?", Info())


def images(
    store: Store,
    metrics: Metrics,
    unix_socket: Optional[str] = None,
    page: Optional[bytes] = None,
    signed: Optional[SignedTickets] = None,
) -> Application:
    """Return what the remote and the local listener serve.

    unix_socket: where clients on this host are better off. page: what people see; None: there is none. signed: tickets
    that are their own proof; None: they are nothing here.
    """
    doors = [] if signed is None else [by_token.door(signed)]
    return image_application([*image_routes(store, unix_socket, doors), *page_routes(page), INFO], metrics)


def with_sessions(
    store: Store,
    metrics: Metrics,
    unix_socket: Optional[str],
    sessions: Sessions,
    page: Optional[bytes] = None,
    signed: Optional[SignedTickets] = None,
) -> Application:
    """Return what the remote listener of a proxy serves, where a signed token opens a session."""
    doors = [*([] if signed is None else [by_token.door(signed)]), by_session.door(sessions)]
    pair: Routes = [("/sessions/?", Opening(sessions)), ("/sessions/(.+)", Closing(sessions))]
    return image_application([*image_routes(store, unix_socket, doors), *pair, *page_routes(page), INFO], metrics)


def control(
    store: Store,
    metrics: Metrics,
    profiler: Profiler,
    remove_timeout: float,
    signed: Optional[SignedTickets] = None,
) -> Application:
    """Return what the control listener serves. No page of a browser has any business there."""
    routes: Routes = [
        ("/tickets", TicketList(store)),
        ("/tickets/(.*)", Tickets(store, remove_timeout, signed)),
        ("/profile/?", Profile(profiler)),
        ("/metrics", MetricsPage(metrics.registry)),
        INFO,
    ]
    return Application(routes, translate=status.translate, admit=refuse_pages, observer=metrics)


def numbers(metrics: Metrics, is_stopping: Callable[[], bool]) -> Application:
    """Return what the metrics listener serves: nothing that has to do with tickets."""
    routes: Routes = [("/metrics", MetricsPage(metrics.registry)), ("/health", Health(is_stopping)), INFO]
    return Application(routes, translate=status.translate, observer=metrics)


def image_routes(store: Store, unix_socket: Optional[str], doors: Sequence[Door]) -> Routes:
    """Return the routes of images; the first match wins. A slash at the end of what is not an id is optional."""
    routes: Routes = [
        ("/images/(.*)/extents/?", Extents(store)),
        ("/images/(.*)/checksum/algorithms/?", Algorithms()),
        ("/images/(.*)/checksum/?", Checksum(store)),
        ("/images/(.*)", Images(store, unix_socket)),
    ]
    return [(pattern, Guarded(resource, doors)) for pattern, resource in routes] if doors else routes


def page_routes(page: Optional[bytes]) -> Routes:
    """Return the route of the page, if there is one."""
    return [] if page is None else [("/view", View(page))]


def image_application(routes: Routes, metrics: Metrics) -> Application:
    # The engine's web pages upload and download.
    return Application(routes, translate=status.translate, cors=cors.Policy(), observer=metrics)
