"""Where an NBD server is: the URLs that name one.

    nbd:unix:/path[:exportname=NAME]            qemu's own notation, which vdsm uses
    nbd:HOST:PORT[:exportname=NAME]
    nbd://HOST[:PORT][/NAME]                    the NBD URI specification
    nbd+unix:///[NAME]?socket=/path
    nbds://..., nbds+unix://...                 the same over TLS
         ?tls-certificates=DIR  holds ca-cert.pem, client-cert.pem and client-key.pem; what is missing is not used
         ?tls-hostname=NAME     the name that the certificate of the server must have

Pure: opens and resolves nothing.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from typing import Optional, Union

from ovirt_imageio import errors
from ovirt_imageio.nbd import wire

__all__ = ["DEFAULT_PORT", "Address", "Location", "TCPAddress", "UnixAddress", "parse"]

DEFAULT_PORT = 10809

# The longest path that fits in a struct sockaddr_un, with the zero byte that ends it.
MAX_PATH = 107

PLAIN_UNIX = re.compile(r"unix:(?P<path>/[^:]*)(?::exportname=(?P<export>.*))?", re.DOTALL)
PLAIN_TCP = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]/]+):(?P<port>[0-9]+)(?::exportname=(?P<export>.*))?", re.DOTALL)

FORMS = "nbd:unix:/path[:exportname=NAME], nbd:HOST:PORT[:exportname=NAME], nbd[s]://HOST[:PORT][/NAME] or "
FORMS += "nbd[s]+unix:///[NAME]?socket=/path"


@dataclass(frozen=True)
class UnixAddress:
    """A server on this host."""

    path: str

    def url(self, export: Optional[str] = None) -> str:
        """Return the URL of an export of this server, in qemu's notation."""
        return f"nbd:unix:{self.path}" + (f":exportname={export}" if export else "")

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True)
class TCPAddress:
    """A server at the other end of a network. An IPv6 address stands without brackets."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise errors.InvalidValue("NBD host", self.host, "a name or an address")
        if type(self.port) is not int or not 0 < self.port < 65536:
            raise errors.InvalidValue("NBD port", self.port, "a number from 1 to 65535")

    def url(self, export: Optional[str] = None) -> str:
        """Return the URL of an export of this server, in qemu's notation."""
        return f"nbd:{self}" + (f":exportname={export}" if export else "")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = Union[UnixAddress, TCPAddress]


@dataclass(frozen=True)
class Location:
    """What an NBD URL says."""

    address: Address
    export: str = ""
    # Speak TLS, or not at all.
    is_secure: bool = False
    # The folder with the certificates to use, instead of those that the program was given.
    certificates: Optional[str] = None
    # The name that the certificate of the server must have, instead of the host's.
    hostname: Optional[str] = None

    def __post_init__(self) -> None:
        if len(self.export.encode("utf-8", "surrogatepass")) > wire.MAX_STRING:
            raise errors.InvalidValue("NBD export", self.export, f"a name of up to {wire.MAX_STRING} bytes")


def parse(url: str) -> Location:
    """Parse the URL of an NBD export; raises errors.InvalidValue."""
    scheme, colon, rest = url.partition(":")
    if scheme == "nbd" and not rest.startswith("//"):
        return parse_plain(url, rest)
    if colon and scheme in ("nbd", "nbds", "nbd+unix", "nbds+unix") and rest.startswith("//"):
        return parse_uri(url)
    raise invalid(url)


def parse_plain(url: str, rest: str) -> Location:
    """Parse qemu's own notation, in which nothing is quoted."""
    match = PLAIN_UNIX.fullmatch(rest)
    if match:
        return Location(unix_address(url, match["path"]), match["export"] or "")
    match = PLAIN_TCP.fullmatch(rest)
    if match is None or len(match["port"]) > 5:
        raise invalid(url)
    return Location(TCPAddress(match["host"].strip("[]"), int(match["port"])), match["export"] or "")


def parse_uri(url: str) -> Location:
    """Parse a URL that follows the NBD URI specification."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        export = urllib.parse.unquote(parts.path[1:], errors="strict")
    except ValueError:
        raise invalid(url) from None
    if parts.fragment or parts.username is not None:
        raise invalid(url)
    path = query.pop("socket", None)
    is_unix = parts.scheme.endswith("+unix")
    if is_unix != (path is not None) or is_unix == (host is not None):
        raise invalid(url)
    if path is not None:
        address: Address = unix_address(url, path)
    else:
        address = TCPAddress(host or "", DEFAULT_PORT if port is None else port)
    is_secure = parts.scheme.startswith("nbds")
    certificates, hostname = query.pop("tls-certificates", None) or None, query.pop("tls-hostname", None) or None
    if query or (not is_secure and (certificates or hostname)):
        raise errors.InvalidValue("NBD URL", url, "no query keys but socket, tls-certificates and tls-hostname")
    return Location(address, export, is_secure, certificates, hostname)


def unix_address(url: str, path: str) -> UnixAddress:
    """Return the address of a path that can be connected to."""
    if not path.startswith("/") or "\0" in path or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
        raise errors.InvalidValue("NBD URL", url, f"an absolute path of up to {MAX_PATH} bytes")
    return UnixAddress(path)


def invalid(url: str) -> errors.InvalidValue:
    """Return the error for a URL of no known form."""
    return errors.InvalidValue("NBD URL", url, FORMS)
