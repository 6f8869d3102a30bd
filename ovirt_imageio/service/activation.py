"""Sockets that the service manager opened for us: sd_listen_fds(3).

Connections that come while the service restarts wait in them, and ports below 1024 need no right of ours. Knows the
protocol; knows nothing of what is served.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

from ovirt_imageio import errors
from ovirt_imageio.httpd.listener import Listener, adopt

__all__ = ["inherited"]

log = logging.getLogger("server")

# The first descriptor, after standard input, output and error.
FIRST = 3

# What FileDescriptorName= may be: the sections of the configuration that describe the listeners.
NAMES = ("remote", "local", "control", "metrics")


def inherited(environ: MutableMapping[str, str] = os.environ, first: int = FIRST) -> dict[str, Listener]:
    """Return the listeners that were opened for this process, by name, and forget them: children have none.

    Raises errors.InvalidValue for a descriptor that is not what it should be.
    """
    passed = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if passed["LISTEN_PID"] != str(os.getpid()) or not passed["LISTEN_FDS"].isdigit():
        return {}
    count = int(passed["LISTEN_FDS"])
    names = passed["LISTEN_FDNAMES"].split(":")
    found: dict[str, list[socket.socket]] = {}
    for number in range(count):
        name = names[number] if number < len(names) else ""
        sock = opened(first + number, name)
        if name in NAMES:
            found.setdefault(name, []).append(sock)
        else:
            log.warning("The service manager opened a socket named %r: expected one of %s", name, ", ".join(NAMES))
            sock.close()
    return {name: adopt(socks) for name, socks in found.items()}


def opened(descriptor: int, name: str) -> socket.socket:
    """Return the socket of a descriptor."""
    expected = "a stream socket that listens: see ListenStream= in systemd.socket(5)"
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise errors.InvalidValue("socket of the service manager", name, f"{expected} ({error.strerror})") from None
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise errors.InvalidValue("socket of the service manager", name, expected)
    return sock
