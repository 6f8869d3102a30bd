"""Connect to an NBD server, or begin to speak NBD where another protocol was spoken, and agree on an export.

What is said until then is decided in handshake.py; here it meets the socket, TLS and the clock.

Knows nothing of requests, HTTP, tickets, backends and configuration.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import time
from collections.abc import Generator
from typing import Callable, Optional

from ovirt_imageio.nbd import handshake, wire
from ovirt_imageio.nbd.address import Location, TCPAddress, UnixAddress
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.errors import ConnectionDead, Disconnected, Refused, TimedOut
from ovirt_imageio.nbd.handshake import Agreement, Export
from ovirt_imageio.nbd.stream import ServerStream
from ovirt_imageio.net import connect as connections
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.net.stream import Stream

__all__ = ["CONNECT_TIMEOUT", "REPLY_TIMEOUT", "connect", "speak"]

CONNECT_TIMEOUT = 10.0
REPLY_TIMEOUT = 60.0


def connect(
    location: Location,
    *,
    dirty: bool = False,
    like: Optional[Agreement] = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    reply_timeout: float = REPLY_TIMEOUT,
    ca_file: Optional[str] = None,
    line: Optional[Lifeline] = None,
) -> Client:
    """Connect to an export, with all its dirty bitmaps if `dirty`, or like it was agreed with a client of ours.

    Raises errors.ConnectionDead.

    The connection must stand within `connect_timeout` seconds, and no later answer may take longer than
    `reply_timeout`. Over TLS the server is verified with `ca_file`, or with what the system trusts. Another thread may
    cut `line` until the connection stands.
    """
    line = line or Lifeline()
    with contextlib.ExitStack() as stack:
        sock = dial(location, connect_timeout, line)
        stack.callback(sock.close)
        try:
            stream = ServerStream(sock, connect_timeout)
        except OSError as e:
            raise Disconnected(f"cannot prepare the connection to the NBD server: {e.strerror or e}") from e
        steps = handshake.negotiate(location.export, dirty=dirty, secure=location.is_secure, like=like)
        try:
            with line.holding(sock):
                export = drive(steps, stream, functools.partial(start_tls, stream, location, ca_file))
        except OSError as e:
            raise stream.failure("negotiate", e) from e
        stream.set_timeout(reply_timeout)
        stack.pop_all()
    return Client(stream, export)


def dial(location: Location, timeout: float, line: Lifeline) -> socket.socket:
    """Return a socket that is connected to the server. Raises errors.ConnectionDead."""
    address = location.address
    target = address.path if isinstance(address, UnixAddress) else (address.host, address.port)
    try:
        return connections.connect(target, timeout, line)
    except TimeoutError as e:
        raise TimedOut(f"the NBD server did not accept a connection within {timeout:g} seconds") from e
    except OSError as e:
        raise Disconnected(f"cannot connect to the NBD server: {e.strerror or e}") from e


def speak(
    stream: Stream,
    export: str = "",
    *,
    dirty: bool = False,
    like: Optional[Agreement] = None,
    reply_timeout: float = REPLY_TIMEOUT,
) -> Client:
    """Speak NBD from now on over a stream that another protocol was spoken over; see `connect`.

    The client closes the stream. The server is one of ours, which tells the sizes of blocks unasked.
    """
    steps = handshake.negotiate(export, dirty=dirty, like=like, asks_maximum=False)
    server = ServerStream(stream, reply_timeout)
    return Client(server, drive(steps, server))


def no_tls() -> None:
    """Take the place of what starts TLS where the URL does not ask for it."""
    raise AssertionError("the negotiation asks for TLS without being told to")


def drive(
    steps: Generator[handshake.Step, bytes, Export], stream: ServerStream, start_tls: Callable[[], None] = no_tls
) -> Export:
    """Do what the negotiation asks for, until it has an export."""
    deadline = time.monotonic() + stream.timeout
    try:
        step = next(steps)
        while time.monotonic() < deadline:
            step = steps.send(perform(step, stream, start_tls))
        raise TimedOut(f"the NBD server did not finish to negotiate within {stream.timeout:g} seconds")
    except StopIteration as end:
        export: Export = end.value
        return export
    except Refused:
        with contextlib.suppress(ConnectionDead):
            stream.send(wire.encode_option(wire.Option.ABORT))
        raise


def perform(step: handshake.Step, stream: ServerStream, start_tls: Callable[[], None]) -> bytes:
    """Do one step of the negotiation."""
    if isinstance(step, handshake.Send):
        stream.send(step.data)
    elif isinstance(step, handshake.Receive):
        data = bytearray(step.size)
        stream.receive(memoryview(data))
        return bytes(data)
    else:
        start_tls()
    return b""


def start_tls(stream: ServerStream, location: Location, ca_file: Optional[str]) -> None:
    """Speak TLS from now on, with the server that the location names."""
    host = location.address.host if isinstance(location.address, TCPAddress) else None
    stream.start_tls(tls_context(location, ca_file), location.hostname or host)


def tls_context(location: Location, ca_file: Optional[str]) -> ssl.SSLContext:
    """Return what verifies the server, and shows it our certificate if we have one.

    A server on a Unix socket has no host name: unless the URL tells one, only its certificate is verified.
    """
    folder = location.certificates
    try:
        context = ssl.create_default_context(cafile=os.path.join(folder, "ca-cert.pem") if folder else ca_file)
        certificate = os.path.join(folder, "client-cert.pem") if folder else ""
        if certificate and os.path.exists(certificate):
            assert folder is not None
            context.load_cert_chain(certificate, os.path.join(folder, "client-key.pem"))
    except OSError as e:
        raise Refused("TLS", f"cannot use the certificates in {folder or ca_file}: {e}") from e
    if location.hostname is None and isinstance(location.address, UnixAddress):
        context.check_hostname = False
    return context
