"""By which names and addresses clients reach a server that listens on a host.

Knows the network of this machine; knows nothing of what is served.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ovirt_imageio.net.addresses import addresses

__all__ = ["Reach", "find"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")

# These listen on every address, of IPv4 or of both families.
WILDCARDS = {"": "IPv4", "0.0.0.0": "IPv4", "::": "both"}


class Reach(NamedTuple):
    """How clients reach us."""

    # As they stand in a URL. The first one works from wherever a client may be.
    hosts: list[str]
    # All that a certificate must be good for.
    names: list[str]
    # False: only this machine gets here.
    is_public: bool


def find(host: str, own: Callable[[], list[str]] = addresses) -> Reach:
    """Return how to reach what listens on host; `own` tells the addresses of this machine."""
    name = socket.gethostname()
    # Avahi and systemd-resolved answer to the last one.
    here = [*LOOPBACK, name, f"{name.partition('.')[0]}.local"]
    if host not in WILDCARDS:
        found = resolve(host)
        is_public = not found or not all(map(is_loopback, found))
        return Reach([host], usable([host, *found, *here]), is_public)
    found = [address for address in own() if WILDCARDS[host] == "both" or ":" not in address]
    # An address works where no name server knows us.
    hosts = [*found, *known_names(name, found)] or ["localhost"]
    return Reach(hosts, usable([*hosts, *here]), bool(found))


def known_names(name: str, own: list[str]) -> list[str]:
    """Return the name of this machine, with its domain if it has one, if it means an address that others reach."""
    try:
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except OSError:
        return []
    canonical = infos[0][3] or name
    return [canonical] if any(info[4][0] in own for info in infos) else []


def resolve(host: str) -> list[str]:
    """Return the addresses of a host; none if it is not known."""
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def is_loopback(address: str) -> bool:
    """Tell whether only this machine reaches the address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def usable(names: Iterable[str]) -> list[str]:
    """Return each name once, without those that a certificate cannot have."""
    return [name for name in dict.fromkeys(names) if re.fullmatch(r"[\w.:-]+", name, re.ASCII)]
