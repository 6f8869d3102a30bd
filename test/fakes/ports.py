"""TCP ports that belong to a test.

A port that was free a moment ago may be somebody else's now: another run of the tests goes on beside this one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

__all__ = ["reserved"]


@contextlib.contextmanager
def reserved(host: str = "127.0.0.1") -> Iterator[int]:
    """Keep a port on which nobody listens, until somebody listens there who asks for this very port.

    The kernel gives it to nobody else: it is bound. A server that sets SO_REUSEADDR, as all do, may listen there
    nevertheless, as often as it wants, because we do not.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        yield holder.getsockname()[1]
