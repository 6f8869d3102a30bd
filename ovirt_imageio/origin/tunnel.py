"""Through an HTTP proxy of the network to a server: CONNECT, and then TLS with the server itself.

Knows sockets and the environment variables that curl knows; the proxy sees nothing but the name of the server.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Optional
from urllib.parse import urlsplit

__all__ = ["choose", "open_tunnel"]

# More than any proxy says before the tunnel is open.
HEAD_LIMIT = 16 * 1024

DEFAULT_PORT = 8080


def choose(host: str, environ: Mapping[str, str]) -> Optional[tuple[str, int]]:
    """Return the proxy for an https server, None if there is none or it shall not be used for this host.

    HTTPS_PROXY, then ALL_PROXY; NO_PROXY lists names whose hosts are reached directly, with all below them. Loopback is
    never reached through a proxy: what is there is on another machine.
    """
    value = first(environ, "https_proxy", "all_proxy")
    if not value or host in ("localhost", "::1") or host.startswith("127."):
        return None
    for item in first(environ, "no_proxy").split(","):
        name = item.strip().lstrip(".").lower()
        if name and (name == "*" or host.lower() == name or host.lower().endswith(f".{name}")):
            return None
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        return (parts.hostname, parts.port or DEFAULT_PORT) if parts.hostname else None
    except ValueError:
        return None


def first(environ: Mapping[str, str], *names: str) -> str:
    """Return the first variable that is set, in lower or upper case."""
    return next((environ[key] for name in names for key in (name, name.upper()) if environ.get(key)), "")


def open_tunnel(sock: socket.socket, host: str, port: int, timeout: float) -> None:
    """Make a connected proxy pass everything on to a server. Raises OSError if it will not, or not in that time."""
    deadline = time.monotonic() + timeout
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        # One byte at a time: what follows belongs to TLS.
        byte = sock.recv(1)
        if not byte or len(head) > HEAD_LIMIT:
            raise OSError("the proxy of the network does not answer as one")
        head += byte
    status = head.partition(b"\r\n")[0].split(b" ")
    if len(status) < 2 or status[1] != b"200":
        said = head.partition(b"\r\n")[0].decode("ascii", "replace")
        raise OSError(f"the proxy of the network refuses: {said[:80]}")
