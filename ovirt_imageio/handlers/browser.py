"""No page of a browser manages tickets, also where it can connect to the control service: over TCP, on its own host.

A page says where it comes from when it asks another origin for something; with a name that leads to loopback
("DNS rebinding") it asks its own origin, and the browser names that one.
"""

from __future__ import annotations

import ipaddress
import re

from ovirt_imageio.httpd.refusal import Refusal
from ovirt_imageio.httpd.request import Request

__all__ = ["refuse_pages"]

# The client of a Unix socket: no browser can use one.
LOCAL = "local"

HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:]+))(?::[0-9]*)?")


def refuse_pages(request: Request) -> None:
    """Raise Refusal if a page may have made a browser ask this. A client that names no host is not a browser."""
    if request.connection.client == LOCAL:
        return
    if "origin" in request.headers:
        raise Refusal(403, "Pages of a browser cannot use this service", close=True)
    host = request.headers.get("host", "")
    if host and not is_loopback(host):
        raise Refusal(403, "This service is for clients on this host: use the name localhost", close=True)


def is_loopback(host: str) -> bool:
    """Return True if the value of a Host header is a name of this host that no DNS server of others gives it."""
    match = HOST.fullmatch(host.strip())
    if match is None:
        return False
    name = match[1] or match[2]
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
