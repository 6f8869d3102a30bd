"""What the service manager gave to this process: sd_listen_fds(3).

Sockets that it opened: connections that come while the service restarts wait in them, and ports below 1024 need no
right of ours. And what it keeps for us (keeping.py). Knows the protocol; knows nothing of what is served.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass, field

from ovirt_imageio import errors
from ovirt_imageio.httpd.listener import Listener, adopt

__all__ = ["KEPT", "TICKETS", "Inherited", "inherited", "opened"]

log = logging.getLogger("server")

# The first descriptor, after standard input, output and error.
FIRST = 3

# What FileDescriptorName= may be: the sections of the configuration that describe the listeners.
NAMES = ("remote", "local", "control", "metrics")

# The names of what it keeps: with this prefix listeners, and the tickets.
KEPT = "kept-"
TICKETS = "tickets"


@dataclass
class Inherited:
    """What this process was given."""

    # By the name of the listener.
    listeners: dict[str, Listener] = field(default_factory=dict)
    # By the name that we gave them; what they are was not looked at yet.
    kept: dict[str, list[int]] = field(default_factory=dict)


def inherited(environ: MutableMapping[str, str] = os.environ, first: int = FIRST) -> Inherited:
    """Return what this process was given, and forget it: children have none.

    Raises errors.InvalidValue for a descriptor that is not what it should be.
    """
    passed = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    given = Inherited()
    if passed["LISTEN_PID"] != str(os.getpid()) or not passed["LISTEN_FDS"].isdigit():
        return given
    names = passed["LISTEN_FDNAMES"].split(":")
    found: dict[str, list[socket.socket]] = {}
    for number in range(int(passed["LISTEN_FDS"])):
        name = names[number] if number < len(names) else ""
        if name == TICKETS or name.startswith(KEPT):
            with contextlib.suppress(OSError):
                os.set_inheritable(first + number, False)
            given.kept.setdefault(name, []).append(first + number)
            continue
        sock = opened(first + number, name)
        if name in NAMES:
            found.setdefault(name, []).append(sock)
        else:
            log.warning("The service manager opened a socket named %r: expected one of %s", name, ", ".join(NAMES))
            sock.close()
    given.listeners = {name: adopt(socks) for name, socks in found.items()}
    return given


def opened(descriptor: int, name: str) -> socket.socket:
    """Return the socket of a descriptor, which is closed if it is not a socket. Raises errors.InvalidValue."""
    expected = "a stream socket that listens: see ListenStream= in systemd.socket(5)"
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise errors.InvalidValue("socket of the service manager", name, f"{expected} ({error.strerror})") from None
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise errors.InvalidValue("socket of the service manager", name, expected)
    return sock
