"""Servers that never say a word: a connection stands, or does not even come about, and that is all.

with silent.tcp() as server:                # the kernel connects; no program answers
with silent.tcp(is_full=True) as server:    # no client connects: the queue is full
with silent.unix(path, is_full=True) as server:
    server.wait_for_client()
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Callable, Union

from fakes.waiting import DEADLINE, wait_until

__all__ = ["Silent", "tcp", "unix"]

# The state in /proc/net/tcp of a socket that waits for its connection.
SYN_SENT = "02"


class Silent:
    """A server at `address`: host and port, or a path."""

    def __init__(self, address: Union[tuple[str, int], str], wait: Callable[[], None]) -> None:
        self.address = address
        self.wait_for_client = wait

    @property
    def port(self) -> int:
        assert not isinstance(self.address, str)
        return self.address[1]


@contextlib.contextmanager
def tcp(is_full: bool = False) -> Iterator[Silent]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0 if is_full else 10))
        address = listener.getsockname()
        if is_full:
            # One waits to be accepted, the next one waits for its place.
            stack.enter_context(socket.create_connection(address, DEADLINE))
            fill = stack.enter_context(socket.socket())
            fill.setblocking(False)
            fill.connect_ex(address)
            before = count_waiting(address[1])
            wait = lambda: wait_until(lambda: count_waiting(address[1]) > before)  # noqa: E731
        else:
            wait = lambda: accept(listener, stack)  # noqa: E731
        yield Silent(address, wait)


@contextlib.contextmanager
def unix(path: str, is_full: bool = False) -> Iterator[Silent]:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0 if is_full else 10)
        if is_full:
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        # A client that waits in a full queue cannot be seen.
        yield Silent(path, (lambda: None) if is_full else (lambda: accept(listener, stack)))


def accept(listener: socket.socket, stack: contextlib.ExitStack) -> None:
    """Wait for a client."""
    listener.settimeout(DEADLINE)
    stack.enter_context(listener.accept()[0])


def count_waiting(port: int) -> int:
    """Return how many wait for a connection to a port of this host."""
    with open("/proc/net/tcp") as table:
        fields = [line.split() for line in table]
    return sum(field[2].endswith(f":{port:04X}") and field[3] == SYN_SENT for field in fields)
