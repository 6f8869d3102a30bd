"""Where an image is that qemu opens by itself.

    file:///PATH                                                   a file or a block device of this host
    rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:id=USER][:conf=PATH]    Ceph
    iscsi://PORTAL[:PORT]/TARGET/LUN
    nfs://SERVER/PATH
    https://HOST[:PORT]/PATH[?QUERY]                               or http
    ssh://[USER@]HOST[:PORT]/PATH
    nbd:unix:/PATH[:exportname=NAME], nbd:HOST:PORT[:exportname=NAME], nbd://HOST[:PORT][/NAME],
        nbd+unix:///[NAME]?socket=/PATH

Each becomes options that qemu is told one by one: what it would read out of a name, as a `rbd:` with any option of Ceph
in it, is not possible. A user and a password are in none of them, as every user of the host sees a command line.

Pure: opens and resolves nothing.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Callable, NamedTuple, NoReturn, Optional

from ovirt_imageio.errors import InvalidValue

__all__ = ["PROTOCOL", "SCHEMES", "ImageURL", "parse"]

Node = Mapping[str, Any]

# The driver ends a request that takes longer, however much of it came: its own 5 seconds are short for a busy server.
HTTP_TIMEOUT = 60

# As qemu sees it: a protocol ends at a colon, and a path may have one only behind a slash.
PROTOCOL = re.compile("[^/]*:")

DEFAULT_PORTS = {"iscsi": 3260, "ssh": 22, "nbd": 10809}

HOST = r"(?P<host>[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
# A name in Ceph: what it would take for the end of one is not in it.
NAME = r"[^\s/@:\\?#\x00-\x1f\x7f]+"

FILE = re.compile(r"file:(?://(?:localhost)?)?(?P<path>/(?!/)[^?#\x00]*)", re.DOTALL)
RBD = re.compile(
    rf"rbd:(?P<pool>{NAME})/(?:(?P<namespace>{NAME})/)?(?P<image>{NAME})(?:@(?P<snapshot>{NAME}))?"
    rf"(?::id=(?P<user>{NAME}))?(?::conf=(?P<conf>/[^\s:@\\\x00-\x1f\x7f]+))?"
)
ISCSI = re.compile(rf"iscsi://{HOST}/(?P<target>[0-9A-Za-z.:_-]+)/(?P<lun>[0-9]{{1,5}})")
NFS = re.compile(rf"nfs://{HOST}(?P<path>/[^?#%\x00-\x1f\x7f]+)")
SSH = re.compile(rf"ssh://(?:(?P<user>[0-9A-Za-z._-]+)@)?{HOST}(?P<path>/[^?#%\x00-\x1f\x7f]+)")
HTTP = re.compile(rf"https?://{HOST}(?:/[!-~]*)?")
NBD_UNIX = re.compile(r"nbd:unix:(?P<path>/[^:\x00]*)(?::exportname=(?P<export>.*))?", re.DOTALL)
NBD_TCP = re.compile(rf"nbd:(?!//){HOST}(?::exportname=(?P<export>.*))?", re.DOTALL)
NBD_URI = re.compile(rf"nbd://{HOST}(?:/(?P<export>[^?#]*))?")
NBD_UNIX_URI = re.compile(r"nbd\+unix:///(?P<export>[^?#]*)\?socket=(?P<path>/[^&\x00]+)")


class ImageURL(NamedTuple):
    """Where an image is."""

    # As it was given.
    text: str
    # That of a file of this host, whose kind decides how qemu opens it.
    path: Optional[str] = None
    # What else qemu is told.
    node: Node = MappingProxyType({})

    @property
    def place(self) -> str:
        """The beginning of the text that tells on which server, or in which pool, it is."""
        scheme, colon, rest = self.text.partition(":")
        slashes = "//" if rest.startswith("//") else ""
        return f"{scheme}{colon}{slashes}{rest[len(slashes) :].partition('/')[0]}/"

    @property
    def shown(self) -> str:
        """As much of it as logs may show: in the path of a server may be a secret, as the ticket of a daemon is."""
        return f"{self.place}(path)" if self.text.startswith("http") else self.text

    @property
    def name(self) -> str:
        """Its last part, for people and logs; not one without a dot in the URL of a server: that may be a secret."""
        if self.text.startswith("http"):
            last = urllib.parse.urlsplit(self.text).path.rpartition("/")[2]
            return last if "." in last else "disk"
        plain = self.text.partition(":")[2]
        plain = plain if "://" in self.text else plain.partition(":")[0]
        return plain.rpartition("/")[2].partition("?")[0] or "disk"


def parse(text: str) -> ImageURL:
    """Return what a text says. Raises InvalidValue."""
    scheme = text.partition(":")[0]
    if scheme not in READERS:
        raise InvalidValue("image", text, f"a URL that begins with {', '.join(f'{name}:' for name in SCHEMES)}")
    return READERS[scheme](text)


def file(text: str) -> ImageURL:
    found = FILE.fullmatch(text) or refuse(text, "file:///PATH, an absolute path")
    return ImageURL(text, found["path"])


def rbd(text: str) -> ImageURL:
    found = RBD.fullmatch(text) or refuse(text, "rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT][:id=USER][:conf=PATH]")
    return ImageURL(text, None, {"driver": "rbd", **given(found)})


def iscsi(text: str) -> ImageURL:
    found = ISCSI.fullmatch(text) or refuse(text, "iscsi://PORTAL[:PORT]/TARGET/LUN, without user and password")
    portal = f"{found['host']}:{port(found, 'iscsi')}"
    node = {"transport": "tcp", "portal": portal, "target": found["target"], "lun": int(found["lun"])}
    return ImageURL(text, None, {"driver": "iscsi", **node})


def nfs(text: str) -> ImageURL:
    found = NFS.fullmatch(text) or refuse(text, "nfs://SERVER/PATH")
    if found["port"]:
        refuse(text, "nfs://SERVER/PATH, without a port")
    return ImageURL(
        text, None, {"driver": "nfs", "server": {"type": "inet", "host": host(found)}, "path": found["path"]}
    )


def ssh(text: str) -> ImageURL:
    found = SSH.fullmatch(text) or refuse(text, "ssh://[USER@]HOST[:PORT]/PATH, without a password")
    server = {"host": host(found), "port": str(port(found, "ssh"))}
    user = {"user": found["user"]} if found["user"] else {}
    return ImageURL(text, None, {"driver": "ssh", "server": server, "path": found["path"], **user})


def http(text: str) -> ImageURL:
    if not HTTP.fullmatch(text):
        refuse(text, "https://HOST[:PORT]/PATH, without user and password")
    return ImageURL(text, None, {"driver": text.partition(":")[0], "url": text, "timeout": HTTP_TIMEOUT})


def nbd(text: str) -> ImageURL:
    unix = NBD_UNIX.fullmatch(text) or NBD_UNIX_URI.fullmatch(text)
    if unix:
        server = {"type": "unix", "path": unquoted(unix["path"], text)}
        return ImageURL(text, None, {"driver": "nbd", "server": server, **export(unix, text)})
    tcp = NBD_URI.fullmatch(text) or NBD_TCP.fullmatch(text)
    if not tcp:
        refuse(text, "nbd:unix:/PATH[:exportname=NAME], or nbd://HOST[:PORT][/NAME]")
    server = {"type": "inet", "host": host(tcp), "port": str(port(tcp, "nbd"))}
    return ImageURL(text, None, {"driver": "nbd", "server": server, **export(tcp, text)})


READERS: Mapping[str, Callable[[str], ImageURL]] = {
    "file": file,
    "rbd": rbd,
    "iscsi": iscsi,
    "nfs": nfs,
    "http": http,
    "https": http,
    "ssh": ssh,
    "nbd": nbd,
    "nbd+unix": nbd,
}

SCHEMES = tuple(READERS)


def given(found: re.Match[str]) -> dict[str, str]:
    """Return the parts of a match that are there."""
    return {name: value for name, value in found.groupdict().items() if value is not None}


def export(found: re.Match[str], text: str) -> dict[str, str]:
    return {"export": unquoted(found["export"], text)} if found["export"] else {}


def unquoted(part: str, text: str) -> str:
    """Return a part of a URI as it is meant; the plain notation of qemu has no quotes."""
    return urllib.parse.unquote(part) if "://" in text else part


def host(found: re.Match[str]) -> str:
    return found["host"].strip("[]")


def port(found: re.Match[str], scheme: str) -> int:
    number = int(found["port"] or DEFAULT_PORTS[scheme])
    if not 0 < number < 65536:
        refuse(found[0], "a URL with a port from 1 to 65535")
    return number


def refuse(text: str, expected: str) -> NoReturn:
    raise InvalidValue("image", text, expected)
