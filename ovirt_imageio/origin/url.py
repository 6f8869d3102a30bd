"""The transfer URL of an image on another server: what it may be, and what may be shown of it.

Pure: resolves nothing, opens nothing.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from ovirt_imageio import errors

__all__ = ["bracketed", "check_url", "is_url", "without_secrets"]

# What a path and a host may hold to be sent as they are.
PATH = re.compile(r"/[!-~]*")
HOST = re.compile(r"[0-9A-Za-z._:%\[\]-]+")

# At least two colons where host and port stand.
BARE_IPV6 = re.compile(r"(https?://)((?:[0-9A-Za-z.%]*:){2,}[0-9A-Za-z.%]*)(?=/|$)")

# What may be shown: user and password apart from the host, and the path without its last part and what follows.
URL = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)?(?://)?)([^/?#]*@)?([^/?#@]*)(?:/((?:[^/?#]*/)*))?")


def bracketed(url: str) -> str:
    """Return a URL with brackets around its IPv6 address, if it has one without.

    An engine writes the URL of a host that it knows by address so, and the port behind the last colon.

    >>> bracketed("https://::1:54322/images/x")
    'https://[::1]:54322/images/x'
    """
    found = BARE_IPV6.match(url)
    if not found:
        return url
    scheme, place = found.groups()
    rest = url[found.end() :]
    host, _, port = place.rpartition(":")
    if is_ipv6(host):
        return f"{scheme}[{host}]:{port}{rest}"
    return f"{scheme}[{place}]{rest}" if is_ipv6(place) else url


def is_ipv6(text: str) -> bool:
    """Is it an IPv6 address, without brackets?"""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def check_url(url: str) -> None:
    """Raise errors.InvalidValue if url cannot be that of an image; its port is not looked at."""
    shown = without_secrets(url)
    url = bracketed(url)
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
