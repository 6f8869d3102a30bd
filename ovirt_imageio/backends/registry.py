"""From the URL of a ticket to the backend that serves it.

The only module that knows which backends there are. It reads no configuration: options arrive as plain values.
"""

from __future__ import annotations

import importlib
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.base import Backend
from ovirt_imageio.net.connect import Lifeline

__all__ = ["Options", "check_url", "open_backend"]

# A backend is imported when the first ticket asks for it: a host that serves only NBD loads no HTTP client.
MODULES: Mapping[str, str] = {
    "file": "ovirt_imageio.backends.file",
    "nbd": "ovirt_imageio.backends.nbd",
    "nbd+unix": "ovirt_imageio.backends.nbd",
    "nbds": "ovirt_imageio.backends.nbd",
    "nbds+unix": "ovirt_imageio.backends.nbd",
    "http": "ovirt_imageio.backends.http",
    "https": "ovirt_imageio.backends.http",
}


@dataclass(frozen=True)
class Options:
    """What the administrator decides about backends."""

    # How many connections one transfer may use; backends that can serve several advertise it.
    max_connections: int = 8
    # Seconds to wait for a connection, and for each answer, of an NBD server and of the origin of a proxy.
    nbd_connect_timeout: float = 10
    nbd_reply_timeout: float = 60
    http_connect_timeout: float = 10
    http_read_timeout: float = 60
    # The certificates that an origin, or an NBD server over TLS, is verified with; None trusts what the system trusts.
    ca_file: Optional[str] = None


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if no backend can serve url. Nothing is opened or resolved."""
    _module(url).check_url(url)


def open_backend(
    url: str, *, writable: bool, sparse: bool, dirty: bool, options: Options, line: Optional[Lifeline] = None
) -> Backend:
    """Open the disk at url; another thread may cut `line`, so that what waits for a server fails."""
    module = _module(url)
    backend: Backend = module.open_backend(
        url, writable=writable, sparse=sparse, dirty=dirty, options=options, line=line
    )
    return backend


def _module(url: str) -> ModuleType:
    try:
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError as e:  # For example half an IPv6 address.
        raise errors.InvalidValue("url", url, "a URL") from e
    name = MODULES.get(scheme)
    if name is None:
        raise errors.InvalidValue("url", url, f"a URL with the scheme {', '.join(sorted(MODULES))}")
    return importlib.import_module(name)
