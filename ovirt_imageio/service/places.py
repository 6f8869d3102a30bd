"""Where each listener listens: as it is configured, or on sockets that the service manager opened.

Knows the configuration; opens nothing.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Union

from ovirt_imageio.config import Config
from ovirt_imageio.httpd.listener import Address, Listener, TcpAddress, UnixAddress

__all__ = ["Place", "configured", "control_address", "find", "metrics_address", "path_of", "remote_address"]

log = logging.getLogger("server")

# An address, or the sockets that are there already.
Place = Union[Address, Listener]


def find(config: Config, given: Mapping[str, Listener]) -> dict[str, Place]:
    """Return where each listener that is enabled will be: on sockets that were given, or as it is configured."""
    found: dict[str, Place] = {"remote": remote_address(config)}
    if config.local.enable:
        # An abstract name has no mode that keeps users out: a ticket is needed.
        found["local"] = UnixAddress(config.local.socket or f"\0{uuid.uuid4()}", 0o666)
    if config.control.enable:
        found["control"] = control_address(config)
    if config.metrics.enable:
        found["metrics"] = metrics_address(config)
    for name, listener in given.items():
        wanted = found.get(name)
        if wanted is None:
            log.warning("The service manager opened %s for [%s], which is not enabled", listener.address, name)
            listener.close()
            continue
        # A random name is as good as another one.
        is_random = name == "local" and not config.local.socket
        if not is_random and not is_same(listener.address, wanted):
            log.warning(
                "[%s] listens on %s, which the service manager opened, not on %s", name, listener.address, wanted
            )
        found[name] = listener
    return found


def configured(config: Config) -> dict[str, str]:
    """Return a text for each listener that is enabled, which is another one if it is configured in another way."""
    found = {"remote": str(remote_address(config))}
    if config.local.enable:
        found["local"] = config.local.socket
    if config.control.enable:
        found["control"] = repr(control_address(config))
    if config.metrics.enable:
        found["metrics"] = str(metrics_address(config))
    return found


def is_same(opened: Address, wanted: Place) -> bool:
    """Tell whether an address is the one that the configuration means; hosts have many spellings, so ports count."""
    if isinstance(opened, TcpAddress):
        return isinstance(wanted, TcpAddress) and wanted.port in (0, opened.port)
    return isinstance(wanted, UnixAddress) and wanted.path == opened.path


def path_of(place: Place) -> str:
    """Return the name of a Unix socket."""
    address = place.address if isinstance(place, Listener) else place
    assert isinstance(address, UnixAddress), address
    return address.path


def remote_address(config: Config) -> Address:
    """Return where clients on the network find us."""
    return TcpAddress(config.remote.host, config.remote.port)


def control_address(config: Config) -> Address:
    """Return where tickets are managed. Clients are not asked for credentials: they must be on this host."""
    control = config.control
    if control.transport == "tcp":
        return TcpAddress("localhost", control.port, prefer_ipv4=control.prefer_ipv4)
    return UnixAddress(control.socket, mode=0o660)


def metrics_address(config: Config) -> Address:
    """Return where Prometheus finds us."""
    return TcpAddress(config.metrics.host, config.metrics.port)
