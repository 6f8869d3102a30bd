"""TCP ports that belong to a test.

A port that was free a moment ago may be taken now: another run of the tests goes on beside this one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

__all__ = ["reserved"]


@contextlib.contextmanager
def reserved() -> Iterator[int]:
    """Keep a port on which no server listens, until one asks for this very port.

    It is bound, on all addresses: the kernel gives it to no program that asks for any. A server that sets
    SO_REUSEADDR, as all do, may listen there nevertheless, as often as it wants, because we do not.
    """
    has_ipv6 = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if has_ipv6 else socket.AF_INET) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if has_ipv6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        holder.bind(("::" if has_ipv6 else "0.0.0.0", 0))
        yield holder.getsockname()[1]
