"""The transfer URL of an image on another server: what it may be, and what may be shown of it.

Pure: resolves nothing, opens nothing.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ovirt_imageio import errors

__all__ = ["check_url", "is_url", "without_secrets"]

# What a path and a host may hold to be sent as they are.
PATH = re.compile(r"/[!-~]*")
HOST = re.compile(r"[0-9A-Za-z._:%\[\]-]+")

# What may be shown: user and password apart from the host, and the path without its last part and what follows.
URL = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://)?)([^/?#]*@)?([^/?#@]*)(?:/((?:[^/?#]*/)*))?")


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if url cannot be that of an image; its port is not looked at."""
    shown = without_secrets(url)
    try:
        parts = urlsplit(url)
    except ValueError as e:
        raise errors.InvalidValue("url", shown, "a URL") from e
    if parts.scheme not in ("http", "https") or not HOST.fullmatch(parts.netloc) or not parts.hostname:
        raise errors.InvalidValue("url", shown, "https://HOST[:PORT]/images/TICKET, without user and password")
    # urlsplit drops line breaks: what it returns is not always what was given.
    if not PATH.fullmatch(parts.path) or parts.query or parts.fragment or parts.geturl() != url:
        raise errors.InvalidValue("url", shown, "https://HOST[:PORT]/images/TICKET, and nothing more")


def is_url(text: str) -> bool:
    """Is it the URL of an image on a server, and not a path?"""
    return text.lower().startswith(("http://", "https://"))


def without_secrets(url: str) -> str:
    """Return as much of a URL as may be shown: neither its ticket nor a password."""
    found = URL.match(url)
    assert found, "every part may be missing"
    scheme, user, host, folder = found.groups()
    # A password that is not quoted may hold anything: then what seems to be the host is a part of it.
    if not user and "@" in url:
        return f"{scheme}(user)"
    shown_user = "(user)@" if user else ""
    return f"{scheme}{shown_user}{host}" + ("" if folder is None else f"/{folder}(ticket)")
