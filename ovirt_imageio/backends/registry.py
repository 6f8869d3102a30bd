"""From the URL of a ticket to the backend that serves it.

The only module that knows which backends there are. It reads no configuration: options arrive as plain values.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from types import ModuleType

from ovirt_imageio import errors
from ovirt_imageio.backends import file, http, image, nbd
from ovirt_imageio.backends.base import Backend, Terms

__all__ = ["check_url", "open_backend"]

# All are imported when the daemon starts: later its user may not be able to read them, and an update of the package
# under a daemon that runs would mix two versions.
BACKENDS: Mapping[str, ModuleType] = {
    "file": file,
    "nbd": nbd,
    "nbd+unix": nbd,
    "nbds": nbd,
    "nbds+unix": nbd,
    "http": http,
    "https": http,
    "image": image,
}


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if no backend can serve url. Nothing is opened or resolved."""
    _module(url).check_url(url)


def open_backend(url: str, terms: Terms) -> Backend:
    """Open the disk at url."""
    backend: Backend = _module(url).open_backend(url, terms)
    return backend


def _module(url: str) -> ModuleType:
    try:
        scheme = urllib.parse.urlsplit(url).scheme
    except ValueError as e:  # For example half an IPv6 address.
        raise errors.InvalidValue("url", url, "a URL") from e
    module = BACKENDS.get(scheme)
    if module is None:
        raise errors.InvalidValue("url", url, f"a URL with the scheme {', '.join(sorted(BACKENDS))}")
    return module
