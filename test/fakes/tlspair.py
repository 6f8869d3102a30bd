"""A stream that serves TLS, and the client at its other end, as Python has it.

with tls_pair(open_stream, shake) as (stream, client): ...
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Callable

from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio.net import tls
from ovirt_imageio.net.stream import Stream

__all__ = ["tls_pair"]


@contextlib.contextmanager
def tls_pair(
    open_stream: Callable[[socket.socket], Stream], shake: Callable[[Stream, ssl.SSLContext], object]
) -> Iterator[tuple[Stream, ssl.SSLSocket]]:
    """Connect both ends; `shake` does the handshake of the server."""
    made = certificates.certificate()
    context = tls.client_context(made.ca_file)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        raw = socket.create_connection(listening.getsockname(), DEADLINE)
        accepted, _ = listening.accept()
    stream = open_stream(accepted)
    client: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: client.append(context.wrap_socket(raw, server_hostname="localhost")))
    thread.start()
    shake(stream, tls.ServerContext(made.cert_file, made.key_file)())
    thread.join()
    try:
        yield stream, client[0]
    finally:
        stream.close()
        client[0].close()
