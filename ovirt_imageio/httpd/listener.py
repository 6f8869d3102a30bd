"""Sockets that listen: on every address of a TCP host, on a Unix path, on an abstract name.

Knows nothing of HTTP and of what happens to a client that connects.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket as sockets
import stat
import uuid
from dataclasses import dataclass
from typing import Union

from ovirt_imageio import errors

__all__ = ["Address", "ListenError", "Listener", "TcpAddress", "UnixAddress", "adopt", "listen"]

# Connections that the kernel holds until we accept them: a burst of clients, not the limit of connections.
BACKLOG = 1024

# With port 0 the kernel picks one for the first address; it may be taken on the others.
PORT_TRIES = 20

# These say that the machine has no such address, for instance no IPv6.
NO_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True)
class TcpAddress:
    """All addresses of a host; "::" is every one of both families, port 0 lets the kernel pick one."""

    host: str
    port: int
    # Bind and report IPv4 addresses first.
    prefer_ipv4: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """A path; with a leading NUL an abstract name, which has no file and no mode; empty: a random abstract name."""

    path: str = ""
    mode: int = 0o660

    @property
    def is_abstract(self) -> bool:
        """True if there is no file."""
        return self.path.startswith("\0")

    def __str__(self) -> str:
        return f"@{self.path[1:]}" if self.is_abstract else self.path


Address = Union[TcpAddress, UnixAddress]


@dataclass(eq=False)
class ListenError(errors.Error):
    """We cannot listen there; `reason` tells what to do about it."""

    address: Address
    reason: str

    def __str__(self) -> str:
        return f"Cannot listen on {self.address}: {self.reason}"


class Listener:
    """Listening sockets, and the address that they really have.

    owns_file: the file of a Unix socket goes when it is closed.

    Threads: one at a time.
    """

    def __init__(self, address: Address, sockets_: list[sockets.socket], *, owns_file: bool = True) -> None:
        self.address = address
        self.sockets = sockets_
        has_file = owns_file and isinstance(address, UnixAddress) and not address.is_abstract
        self._inode = file_id(address.path) if has_file and isinstance(address, UnixAddress) else None

    def close(self) -> None:
        """Stop listening; harmless when repeated. The file of a Unix socket goes, if it is still ours."""
        for sock in self.sockets:
            sock.close()
        if self._inode is not None and isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError):
                if file_id(self.address.path) == self._inode:
                    os.unlink(self.address.path)
            self._inode = None

    def keep_file(self) -> None:
        """Leave the file of a Unix socket where it is when we are closed: another process goes on listening."""
        self._inode = None


def listen(address: Address) -> Listener:
    """Listen on the address. Raises ListenError."""
    if isinstance(address, TcpAddress):
        return listen_tcp(address)
    return listen_unix(address)


def adopt(sockets_: list[sockets.socket]) -> Listener:
    """Return a listener for stream sockets that listen already, and that another process has as well."""
    for sock in sockets_:
        sock.setblocking(False)
    first = sockets_[0]
    name = first.getsockname()
    if first.family == sockets.AF_UNIX:
        path = name if isinstance(name, str) else os.fsdecode(name)
        return Listener(UnixAddress(path), sockets_, owns_file=False)
    return Listener(TcpAddress(name[0], name[1]), sockets_)


def listen_tcp(address: TcpAddress) -> Listener:
    """Listen on every address that the host has; raises ListenError if one is in use, or none exists."""
    if not 0 <= address.port <= 65535:
        raise ListenError(address, "expected a port from 0 to 65535")
    try:
        targets = resolve(address)
    except OSError as error:
        raise ListenError(address, f"cannot resolve the host: {error.strerror}") from None
    for left in reversed(range(PORT_TRIES)):
        try:
            bound = bind_all(targets)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and address.port == 0 and left:
                continue
            raise ListenError(address, reason(error)) from None
        return Listener(TcpAddress(address.host, bound[0].getsockname()[1], address.prefer_ipv4), bound)
    raise AssertionError("the last try returns or raises")


def resolve(address: TcpAddress) -> list[tuple[int, tuple[object, ...]]]:
    """Return the family and socket address of each address of the host; link-local ones need a zone, and are left out.

    No reverse look-up: that takes long where DNS is broken, and is not needed.
    """
    # An empty host means every IPv4 address, as it did in former releases.
    found = sockets.getaddrinfo(
        address.host or "0.0.0.0", address.port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE
    )
    targets = [(int(info[0]), tuple(info[4])) for info in found if not str(info[4][0]).lower().startswith("fe80:")]
    if address.host == "::":
        # The kernel may have been started without IPv6.
        targets.append((sockets.AF_INET, ("0.0.0.0", address.port)))
    if address.prefer_ipv4:
        targets.sort(key=lambda target: target[0] != sockets.AF_INET)
    return list(dict.fromkeys(targets))


def bind_all(targets: list[tuple[int, tuple[object, ...]]]) -> list[sockets.socket]:
    """Return a listening socket for each target that exists, all on the same port. Raises OSError."""
    with contextlib.ExitStack() as stack:
        bound: list[sockets.socket] = []
        failure = OSError(errno.EADDRNOTAVAIL, "no usable address")
        for family, target in targets:
            if bound:
                if target[0] == "0.0.0.0":
                    # The IPv6 socket takes IPv4 clients, too.
                    continue
                target = (target[0], bound[0].getsockname()[1], *target[2:])
            try:
                sock = bind_tcp(family, target)
            except OSError as error:
                if error.errno not in NO_ADDRESS:
                    raise
                failure = error
                continue
            bound.append(stack.enter_context(sock))
        if not bound:
            raise failure
        stack.pop_all()
        return bound


def bind_tcp(family: int, target: tuple[object, ...]) -> sockets.socket:
    """Return a socket that listens on one address. Raises OSError."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(sockets.socket(family, sockets.SOCK_STREAM))
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        if family == sockets.AF_INET6:
            # Only "any" takes both families.
            sock.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, target[0] != "::")
        sock.bind(target)
        sock.listen(BACKLOG)
        sock.setblocking(False)
        stack.pop_all()
        return sock


def listen_unix(address: UnixAddress) -> Listener:
    """Listen on a path or an abstract name. The socket that a dead process left is replaced. Raises ListenError."""
    if not address.path:
        address = UnixAddress(f"\0{uuid.uuid4()}")
    try:
        if not address.is_abstract:
            remove_stale(address)
        with contextlib.ExitStack() as stack:
            sock = stack.enter_context(sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM))
            sock.bind(address.path)
            if not address.is_abstract:
                stack.callback(os.unlink, address.path)
                # Before listen() clients cannot connect, whatever the mode was.
                os.chmod(address.path, address.mode)
            sock.listen(BACKLOG)
            sock.setblocking(False)
            stack.pop_all()
    except OSError as error:
        raise ListenError(address, reason(error)) from None
    return Listener(address, [sock])


def remove_stale(address: UnixAddress) -> None:
    """Make room at the path, unless a service listens there. Raises ListenError, OSError."""
    path = address.path
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise ListenError(address, f"the folder {parent} does not exist; create it")
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ListenError(address, "there is a file that is not a socket; move it away")
    if is_alive(path):
        raise ListenError(address, "another process listens there; stop it, or use another path")
    os.unlink(path)


def is_alive(path: str) -> bool:
    """Return True if a service listens on the socket at the path."""
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as sock:
        # One that is too busy to accept at once is alive.
        sock.setblocking(False)
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
        return True


def file_id(path: str) -> tuple[int, int]:
    """Return what tells a file from another one at the same path."""
    info = os.lstat(path)
    return info.st_dev, info.st_ino


def reason(error: OSError) -> str:
    """Return what went wrong, and what to do about it."""
    text = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{text.lower()}; is the service running already?"
    if error.errno == errno.EACCES:
        return f"{text.lower()}; ports below 1024 and system folders are for root"
    return text[:1].lower() + text[1:]
