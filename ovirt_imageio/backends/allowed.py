"""Which disks a signed ticket may name: patterns of URLs, matched against one spelling of each URL.

    file:///var/lib/images/*.raw   https://*.hosts.example:54322/images/*   nbd:unix:/run/vms/**/disk.sock

    rbd:vms/*   image:qcow2:rbd:vms/*

`*` and `?` stand for anything but a slash, `**` for anything; in the name of an image in Ceph, which may be followed by
options, neither of them for a colon. No wildcard reaches from the place of a server into the
path or the export on it, but for `**` at the end of a pattern. Nothing is allowed unless a pattern allows it.

Pure: opens and resolves nothing. So a name that a name server leads to another host, or a link in an allowed folder
that leads to a file elsewhere, is not seen here.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import urllib.parse
from collections.abc import Iterable, Mapping

from ovirt_imageio import errors
from ovirt_imageio.nbd import address
from ovirt_imageio.origin.url import bracketed, check_url, without_secrets
from ovirt_imageio.qemu import urls

__all__ = ["Allowed", "canonical"]

SCHEMES = ("file", "http", "https", "nbd", "nbds", "rbd", "iscsi", "nfs", "ssh")

# An image for qemu-nbd: its format, `*` for any, stands before the URL.
IMAGE = re.compile(r"image:(?P<format>[^:]*):")

WILDCARDS = re.compile(r"\*\*|\*|\?")
MEANING = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
# Options stand behind colons: another cluster, or another user.
IN_CEPH = {"**": "[^:]*", "*": "[^/:]*", "?": "[^/:]"}

DEFAULT_PORTS = {"http": 80, "https": 443}

# Others are not what they seem: what resolves names reads ⓛocalhost, and dots of other scripts, as localhost.
HOST = re.compile(r"[0-9a-z._-]+|[0-9a-f:.]+(?:%[0-9a-z._-]+)?")

# Other spellings of addresses: 2130706433, 0x7f.1 and 127.1 all mean 127.0.0.1 to many programs.
NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Allowed:
    """Patterns of URLs.

    Raises errors.InvalidValue for a text that is not a pattern of URLs that can be served.

    Threads: any number at once.

    >>> Allowed(["file:///images/*"]).permits("file:///images/disk.raw")
    True
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [(*beheaded(pattern), compile_pattern(pattern)) for pattern in patterns]

    def permits(self, url: str) -> bool:
        """Return True if a pattern allows the URL. Raises errors.InvalidValue for a URL that is spelled oddly."""
        head, spelled = beheaded(canonical(url))
        host = host_of(spelled)
        # A wildcard does not reach what only this host, or this network, should be asked for.
        prefix = (
            spelled[: spelled.index(host, spelled.rfind("@") + 1) + len(host)]
            if host and is_special(host.strip("[]"))
            else ""
        )
        place, rest = halves(spelled)
        return any(
            wanted in (head, head and "image:*:")
            and text.lower().startswith(prefix)
            and of_place.fullmatch(place)
            and of_rest.fullmatch(rest)
            for wanted, text, (of_place, of_rest) in self._patterns
        )


def compile_pattern(pattern: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what matches the two halves of the URLs that a pattern allows."""
    pattern = beheaded(pattern)[1]
    scheme = pattern.partition(":")[0]
    if scheme not in SCHEMES or not pattern[len(scheme) + 1 :].strip("/"):
        expected = f"a pattern that begins with {', '.join(f'{name}:' for name in SCHEMES)} and goes on"
        raise errors.InvalidValue("pattern", pattern, expected)
    place, rest = halves(pattern)
    meaning = IN_CEPH if scheme == "rbd" else MEANING
    open_end = place.endswith("**") and not rest
    return compile_half(place, meaning), compile_half("**" if open_end else rest, meaning)


def beheaded(text: str) -> tuple[str, str]:
    """Return what stands before the URL of an image, "" in all other URLs and patterns, and the rest.

    >>> beheaded("image:raw:rbd:vms/disk"), beheaded("file:///disk")
    (('image:raw:', 'rbd:vms/disk'), ('', 'file:///disk'))
    """
    found = IMAGE.match(text)
    return (found[0], text[found.end() :]) if found else ("", text)


def halves(text: str) -> tuple[str, str]:
    """Return the place of a server and what is on it, of a URL in the one spelling or of a pattern.

    The second half is up to the holder of a key: matched with the first one, it could stand in for a part of that.

    >>> halves("nbd:host:10809:exportname=vda"), halves("https://host/images/x")
    (('nbd:host:10809', ':exportname=vda'), ('https://host', '/images/x'))
    """
    if text.startswith("nbd"):
        place, mark, export = text.partition(":exportname=")
        return place, mark + export
    if text.startswith("rbd"):
        pool, slash, image = text.partition("/")
        return pool, slash + image
    scheme, mark, rest = text.partition("://")
    place, slash, path = rest.partition("/")
    return scheme + mark + place, slash + path


def compile_half(pattern: str, meaning: Mapping[str, str] = MEANING) -> re.Pattern[str]:
    parts, position = [], 0
    for found in WILDCARDS.finditer(pattern):
        parts += [re.escape(pattern[position : found.start()]), meaning[found[0]]]
        position = found.end()
    return re.compile("".join([*parts, re.escape(pattern[position:])]), re.DOTALL)


def canonical(url: str) -> str:
    """Return the one spelling of the URL of a disk that patterns are matched against.

    Raises errors.InvalidValue for a text that is not a URL, or hides where it leads.

    >>> canonical("nbd+unix:///vda?socket=/run/disk.sock")
    'nbd:unix:/run/disk.sock:exportname=vda'
    """
    head, url = beheaded(url)
    return head + spelled_one_way(url)


def spelled_one_way(url: str) -> str:
    scheme = url.partition(":")[0]
    if scheme == "file":
        return f"file://{plain_path(url, file_path(url))}"
    if scheme.startswith("nbd"):
        return nbd_url(url)
    if scheme in ("rbd", "iscsi", "nfs", "ssh"):
        return image_url(url)
    check_url(url)
    parts = urllib.parse.urlsplit(bracketed(url))
    try:
        port = parts.port
    except ValueError:
        raise odd(url) from None
    place = "" if port is None or port == DEFAULT_PORTS[parts.scheme] else f":{port}"
    host = checked_host(url, parts.hostname or "")
    shown = f"[{host}]" if ":" in host else host
    if "%" in parts.path:
        raise odd(url)
    return f"{parts.scheme}://{shown}{place}{plain_path(url, parts.path)}"


def file_path(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        raise odd(url) from None
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "\0" in url:
        raise odd(url)
    return parts.path


def nbd_url(url: str) -> str:
    location = address.parse(url)
    if location.certificates is not None or location.hostname is not None:
        # They name files of this host, and whom to trust.
        raise errors.InvalidValue("url", url, "an NBD URL that names no certificates")
    where = location.address
    if isinstance(where, address.UnixAddress):
        if ":" in where.path:
            raise odd(url)
        plain_path(url, where.path)
    else:
        where = address.TCPAddress(checked_host(url, where.host), where.port)
    text = where.url(location.export)
    return text.replace("nbd:", "nbds:", 1) if location.is_secure else text


def image_url(url: str) -> str:
    """Return the URL of an image for qemu, if it says where it leads."""
    urls.parse(url)
    if not url.startswith("rbd:"):
        place, rest = halves(url)
        plain_path(url, rest)
        user, at, host = place.partition("://")[2].rpartition("@")
        name = host if host.endswith("]") else host.partition(":")[0]
        checked_host(url, name.strip("[]"))
        return f"{place.partition('://')[0]}://{user}{at}{host.lower()}{rest}"
    return url


def checked_host(url: str, host: str) -> str:
    """Return the host in lower case, if it says which one it is."""
    if not HOST.fullmatch(host.lower()):
        raise odd(url)
    return host.lower()


def plain_path(url: str, path: str) -> str:
    """Return the path if it says where it leads: from the root, without `..`, doubled slashes, or one at the end."""
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path:
        raise odd(url)
    return path


def host_of(spelled: str) -> str:
    """Return the host that a URL in the one spelling names, "" if it names none; an IPv6 address has brackets."""
    found = re.match(
        r"(?:https?|iscsi|nfs|ssh)://(?:[^/@]*@)?(\[[^]]*\]|[^/:]*)|nbds?:(?!unix:)(\[[^]]*\]|[^:]*)", spelled
    )
    return (found[1] or found[2]) if found else ""


def is_special(host: str) -> bool:
    """True for what is this host, a link-local address, or an address in another spelling."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().rstrip(".")
        return NUMERIC.fullmatch(name.rpartition(".")[2]) is not None or name.rpartition(".")[2] == "localhost"
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved


def odd(url: str) -> errors.InvalidValue:
    return errors.InvalidValue("url", without_secrets(url), "a URL that says where it leads")
