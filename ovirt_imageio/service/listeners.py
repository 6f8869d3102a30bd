"""The listeners, and the tickets that they share.

    remote   TCP, TLS      images        clients on the network
    local    Unix          images        clients on this host
    control  Unix or TCP   tickets       vdsm, the engine, ovirt-imageioctl
    metrics  TCP           numbers       Prometheus, load balancers; off by default

Everything is built here from the configuration: nothing below knows of it. Knows nothing of processes and signals.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.auth.observer import TicketObserver
from ovirt_imageio.auth.store import Store
from ovirt_imageio.auth.ticket import Ticket
from ovirt_imageio.backends import http, registry
from ovirt_imageio.backends.base import Backend, Options, Terms
from ovirt_imageio.config import Config
from ovirt_imageio.exports.exports import Exports
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.listener import Listener
from ovirt_imageio.httpd.observer import Observer
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.httpd.server import Server
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.tls import ServerContext
from ovirt_imageio.service import exporting, page, places, routes, trust
from ovirt_imageio.service.metrics import Metrics
from ovirt_imageio.service.profiler import Profiler
from ovirt_imageio.sessions.denials import DenyFile
from ovirt_imageio.sessions.sessions import Sessions
from ovirt_imageio.sessions.signed import SignedTickets

__all__ = ["Listeners"]


# How long a request for control may take to be answered when all transfers are over.
ANSWER_GRACE = 1.0


class Listeners:
    """Everything that serves: bound on construction, serving from start() to stop().

        listeners = Listeners(config)
        listeners.start()
        ...
        listeners.stop(grace=10)

    given: sockets that were opened for us, by the name of the listener; they are used instead of the addresses
    in the configuration.

    Raises errors.ConfigError or httpd's ListenError; then nothing stays behind.

    Threads: start and stop by one; `store` any.
    """

    def __init__(
        self, config: Config, metrics: Optional[Metrics] = None, given: Mapping[str, Listener] = MappingProxyType({})
    ) -> None:
        metrics = metrics or Metrics()
        self._lock = threading.Lock()
        self._is_stopping = threading.Event()
        # When clients could reach us last.
        self._stopped: Optional[float] = None
        self._tls = tls = trust.server_context(config)
        if tls:
            metrics.watch_certificate(lambda: tls.expires)
        with contextlib.ExitStack() as scope:
            self._exports = exporting.start(config) if config.export.enable else None
            if self._exports is not None:
                scope.callback(self._exports.close)
            options = backend_options(config, self._exports)
            self.store = open_store(config, options, metrics, self._exports)
            metrics.watch(self.store)
            where = places.find(config, given)
            # Clients of the remote listener that are on this host are told about the local one.
            offered = places.path_of(where["local"]) if "local" in where else None
            view = page.load() if config.page.enable else None
            self._signed = signed = open_signed(config, self.store) if config.signed_tickets.enable else None
            local = routes.images(self.store, metrics, offered, view, signed)
            remote = local
            self._sessions = open_sessions(config, options, self.store) if config.sessions.enable else None
            if self._sessions is not None:
                remote = routes.with_sessions(self.store, metrics, offered, self._sessions, view, signed)
            control = routes.control(
                self.store, metrics, Profiler(config.profile.filename), config.control.remove_timeout, signed
            )
            bind = functools.partial(open_server, scope, limits=limits(config), observer=metrics)
            self.remote = bind("remote.service", where["remote"], remote, tls=self._tls)
            self.local = bind("local.service", where["local"], local) if "local" in where else None
            self.control = bind("control.service", where["control"], control) if "control" in where else None
            numbers = routes.numbers(metrics, self._is_stopping.is_set)
            self.metrics = bind("metrics.service", where["metrics"], numbers) if "metrics" in where else None
            self._scope = scope.pop_all()

    def start(self) -> None:
        """Serve."""
        self.store.start()
        self._scope.callback(self.cut)
        for server in self._servers():
            server.start()

    def stop(self, grace: float = 0) -> None:
        """Give running requests `grace` seconds, cut them off, and release everything. Harmless when repeated.

        The listeners for control and metrics are the last ones to go: until then they tell what is waited for.
        """
        self._stopped = self._stopped or time.monotonic()
        self._is_stopping.set()
        # All at once, so that together they take no longer than one.
        stoppers = [
            threading.Thread(target=server.stop, args=(grace,), name=f"stop {server.name}", daemon=True)
            for server in self._image_servers()
        ]
        deadline = time.monotonic() + grace
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join(max(0, deadline - time.monotonic()))
        # Servers cut off clients; operations that wait for storage are woken here.
        self.cut()
        for stopper in stoppers:
            stopper.join()
        for server in self._servers():
            # The client that removed the last ticket gets its answer.
            server.stop(min(grace, ANSWER_GRACE))
        self._scope.close()

    def cut(self) -> None:
        """Cut off every transfer: a stop() that waits for them returns. Threads: any."""
        with self._lock:
            self.store.stop()

    def opened(self) -> dict[str, Listener]:
        """Return the sockets by the name of the listener, as in the configuration."""
        return {server.name.partition(".")[0]: server.listener for server in self._servers()}

    def record(self) -> dict[str, Any]:
        """Return what another process needs to go on with the tickets, as a JSON object; called after stop()."""
        tickets = [record.describe() for record in self.store.record(self._stopped or time.monotonic())]
        return {
            "tickets": tickets,
            "sessions": [] if self._sessions is None else self._sessions.record(),
            "signed": {} if self._signed is None else self._signed.record(),
        }

    def resume(self, document: Mapping[str, Any]) -> None:
        """Go on with the tickets of another process; called before start(). Raises errors.InvalidValue."""
        for name in ("tickets", "sessions"):
            if not isinstance(document.get(name), list):
                raise errors.InvalidValue(name, type(document.get(name)).__name__, "a list")
        self.store.resume(document["tickets"])
        if self._sessions is not None:
            self._sessions.resume(document["sessions"])
        if self._signed is not None:
            self._signed.resume(document.get("signed", {}))

    def reload_certificate(self) -> None:
        """Use the certificate that is in the files now, from the next connection on. Raises errors.ConfigError."""
        if self._tls:
            self._tls.reload()

    def follow_certificate(self) -> bool:
        """Do it if the files have changed; return whether they had. Raises errors.ConfigError."""
        return self._tls is not None and self._tls.follow()

    @property
    def expires(self) -> Optional[int]:
        """When the certificate expires, in seconds since the epoch; None if there is none, or it cannot be told."""
        return self._tls.expires if self._tls else None

    def describe(self) -> str:
        """Return what goes on, for people."""
        active = self.store.states().get("active", 0)
        connections = sum(server.connections for server in self._servers())
        return f"Active transfers: {active}, connections: {connections}"

    def describe_running(self) -> str:
        """Return what a stop would wait for."""
        names = [info["transfer_id"] for info in self.store.list() if info["active"]]
        if names:
            return f"{len(names)} transfer{'s' if names[1:] else ''}: {', '.join(names)}"
        connections = sum(server.connections for server in self._image_servers())
        if not connections and self._exports is not None:
            return f"{len(self._exports.pids)} servers of images to end"
        return f"{connections} connections"

    def _servers(self) -> list[Server]:
        return [*self._image_servers(), *(server for server in (self.control, self.metrics) if server is not None)]

    def _image_servers(self) -> list[Server]:
        return [server for server in (self.remote, self.local) if server is not None]


def limits(config: Config) -> Limits:
    """Return what one client, and all of a listener, may use."""
    remote = config.remote
    return Limits(
        connections=remote.max_connections,
        client_connections=remote.max_client_connections or max(1, remote.max_connections * 3 // 4),
        handshake_timeout=remote.handshake_timeout,
        header_timeout=remote.header_timeout,
        idle_timeout=remote.idle_timeout,
        io_timeout=remote.idle_timeout,
    )


def backend_options(config: Config, exports: Optional[Exports] = None) -> Options:
    """Return how disks are opened."""
    ca_section, ca_file = config.origin_ca
    return Options(
        max_connections=min(config.daemon.max_connections, config.daemon.max_ticket_connections),
        nbd_connect_timeout=config.backend_nbd.connect_timeout,
        nbd_reply_timeout=config.backend_nbd.reply_timeout,
        http_connect_timeout=config.backend_http.connect_timeout,
        http_read_timeout=config.backend_http.read_timeout,
        ca_file=ca_file or None,
        ca_section=ca_section,
        images=exports,
        kernel_tls=config.tls.kernel == "auto",
    )


def open_store(config: Config, options: Options, observer: TicketObserver, exports: Optional[Exports]) -> Store:
    """Return the store of tickets."""

    def open_backend(ticket: Ticket, line: Lifeline, traceparent: Optional[str]) -> Backend:
        terms = Terms(options, ticket.can("write"), ticket.sparse, ticket.dirty, line, traceparent)
        return registry.open_backend(ticket.url, terms)

    def check_url(url: str) -> None:
        registry.check_url(url)
        if url.startswith("image:"):
            if exports is None:
                raise errors.InvalidValue("url", url, "an image: URL only where [export] enable permits it")
            exports.check(url)

    def end_idle(ticket: Ticket) -> None:
        if exports is not None:
            exports.end_idle(ticket.url)

    return Store(
        open_backend,
        default_inactivity_timeout=config.daemon.inactivity_timeout,
        check_url=check_url,
        on_gone=end_idle,
        remove_grace=config.control.remove_grace,
        purge_after=config.control.purge_after,
        max_connections=config.daemon.max_ticket_connections,
        observer=observer,
    )


def open_sessions(config: Config, options: Options, store: Store) -> Sessions:
    """Return the sessions of a proxy. Raises errors.ConfigError if the engine's certificates cannot be used."""
    return Sessions(store, trust.open_engine(config).verify, functools.partial(http.look, options=options))


def open_signed(config: Config, store: Store) -> SignedTickets:
    """Return the signed tickets. Raises errors.ConfigError."""
    path = config.signed_tickets.deny_file
    verify = trust.open_verifier(config).verify
    return SignedTickets(store, verify, DenyFile(path)) if path else SignedTickets(store, verify)


def open_server(
    scope: contextlib.ExitStack,
    name: str,
    address: places.Place,
    application: Application,
    *,
    limits: Limits,
    observer: Observer,
    tls: Optional[ServerContext] = None,
) -> Server:
    """Return a server that listens, until the scope ends."""
    server = Server(address, application, tls=tls, limits=limits, observer=observer, name=name)
    scope.callback(server.stop)
    return server
