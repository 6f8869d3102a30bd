"""A line to a server far away: a relay on loopback that lets bytes pass only after a while.

    with relayed(port, Distance(0.05)) as far:      # what connects to the port `far` is 50 ms from the server

Each connection has a window: as many bytes may be under way in each direction, until their acknowledgement would be
back. The first ones wait one round trip more, as those of a real connection wait for its handshake. A bandwidth is
shared by all connections. Slow start and losses there are none: those take a kernel, see lossy.py.

The relay is a process of its own, and copies bytes twice: one connection moves more than 1 GiB/s.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

__all__ = ["WINDOW", "Distance", "relayed"]

# What Linux lets the buffers of a connection grow to, if it is not told otherwise, is 4 MiB to send and 6 MiB to
# receive, of which a part is for its own use.
WINDOW = 4 * 1024**2

# At most so much is received, or sent, before others have their turn.
STEP = 256 * 1024


@dataclass(frozen=True)
class Distance:
    """How far away: seconds for the way there and back, and bytes per second of the line, 0 for no limit."""

    round_trip: float
    bandwidth: float = 0
    window: int = WINDOW


class Agenda:
    """What to do when. Threads: one."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def add(self, when: float, what: Callable[[], None]) -> None:
        """Note what to do."""
        heapq.heappush(self._heap, (when, next(self._order), what))

    def run(self) -> Optional[float]:
        """Do what is due; return in how many seconds there is more to do, None if there is nothing."""
        while self._heap:
            left = self._heap[0][0] - time.monotonic()
            if left > 0:
                return left
            heapq.heappop(self._heap)[2]()
        return None


class Wire:
    """One direction of the line, for all connections: it takes one byte after the other."""

    def __init__(self, distance: Distance) -> None:
        self._distance = distance
        self._free = 0.0

    def arrival(self, count: int, earliest: float) -> float:
        """Return when bytes that are sent now, but no earlier than that, are there."""
        start = time.monotonic()
        if self._distance.bandwidth:
            start = self._free = max(start, self._free) + count / self._distance.bandwidth
        return max(start, earliest) + self._distance.round_trip / 2


class Direction:
    """One direction of one connection. Bytes wait in a ring, which is as large as the window:

    acknowledged <= sent <= arrived <= received; each counts bytes since the beginning.
    """

    def __init__(
        self, source: socket.socket, target: socket.socket, wire: Wire, agenda: Agenda, distance: Distance
    ) -> None:
        self.source, self.target = source, target
        self._wire, self._agenda, self._distance = wire, agenda, distance
        # As a handshake takes one round trip.
        self._earliest = time.monotonic() + distance.round_trip
        self._ring = memoryview(bytearray(distance.window))
        self._received = self._arrived = self._sent = self._acknowledged = 0
        # Of what the agenda knows, in order: where it ends.
        self._coming: deque[int] = deque()
        self._leaving: deque[int] = deque()
        self._is_ended = False
        self.is_over = False

    @property
    def wants_input(self) -> bool:
        """Is there room in the window?"""
        return not self._is_ended and self._received - self._acknowledged < len(self._ring)

    @property
    def wants_output(self) -> bool:
        """Is there something for the target?"""
        return self._sent < self._arrived

    def receive(self) -> None:
        """Take from the source what is there."""
        start = self._received % len(self._ring)
        room = len(self._ring) - (self._received - self._acknowledged)
        try:
            count = self.source.recv_into(self._ring[start : start + min(room, STEP)])
        except BlockingIOError:
            return
        except OSError:
            count = 0
        if count:
            self._received += count
            self._coming.append(self._received)
        else:
            self._is_ended = True
        self._agenda.add(self._wire.arrival(count, self._earliest), self._arrive if count else self._end)

    def _arrive(self) -> None:
        self._arrived = self._coming.popleft()
        self.send()

    def send(self) -> None:
        """Give to the target what it takes."""
        before = self._sent
        while self._sent < self._arrived:
            start = self._sent % len(self._ring)
            step = self._ring[start : start + min(self._arrived - self._sent, STEP)]
            try:
                self._sent += self.target.send(step)
            except BlockingIOError:
                break
            except OSError:
                # Nobody takes it.
                self._sent = self._arrived
        if self._sent > before:
            self._leaving.append(self._sent)
            self._agenda.add(time.monotonic() + self._distance.round_trip / 2, self._acknowledge)
        if self.is_over and not self.wants_output:
            self._shut_down()

    def _acknowledge(self) -> None:
        self._acknowledged = self._leaving.popleft()

    def _end(self) -> None:
        self.is_over = True
        if not self.wants_output:
            self._shut_down()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self.target.shutdown(socket.SHUT_WR)


class Connection:
    """A client, and its connection to the server."""

    def __init__(self, client: socket.socket, port: int, wires: tuple[Wire, Wire], agenda: Agenda, distance: Distance):
        server = socket.create_connection(("localhost", port))
        self.sockets = (client, server)
        for sock in self.sockets:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.there = Direction(client, server, wires[0], agenda, distance)
        self.back = Direction(server, client, wires[1], agenda, distance)

    @property
    def is_over(self) -> bool:
        """Will nothing pass any more?"""
        return all(way.is_over and not way.wants_output for way in (self.there, self.back))

    def close(self) -> None:
        """Close both sockets."""
        for sock in self.sockets:
            sock.close()


class Relay:
    """All connections to one server. Threads: one."""

    def __init__(self, listener: socket.socket, port: int, distance: Distance) -> None:
        self._listener = listener
        self._port = port
        self._distance = distance
        self._wires = (Wire(distance), Wire(distance))
        self._agenda = Agenda()
        self._connections: list[Connection] = []

    def run(self) -> None:
        """Relay for ever."""
        while True:
            left = self._agenda.run()
            ways = [way for connection in self._connections for way in (connection.there, connection.back)]
            sources = {way.source: way for way in ways if way.wants_input}
            targets = {way.target: way for way in ways if way.wants_output}
            # Its time-out is exact to the microsecond, where that of poll() is to the millisecond.
            readable, writable, _ = select.select([self._listener, *sources], [*targets], [], left)
            for sock in readable:
                if sock is self._listener:
                    self._accept()
                else:
                    sources[sock].receive()
            for sock in writable:
                targets[sock].send()
            for connection in [connection for connection in self._connections if connection.is_over]:
                self._connections.remove(connection)
                connection.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            self._connections.append(Connection(client, self._port, self._wires, self._agenda, self._distance))
        except OSError:
            client.close()


@contextlib.contextmanager
def relayed(port: int, distance: Distance) -> Iterator[int]:
    """Run a relay to a port of this host; give its own port."""
    options = [port, distance.round_trip, distance.bandwidth, distance.window]
    command = [sys.executable, __file__, *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def main() -> None:
    """Relay until a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("round_trip", type=float)
    parser.add_argument("bandwidth", type=float)
    parser.add_argument("window", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        print(listener.getsockname()[1], flush=True)
        Relay(listener, options.port, Distance(options.round_trip, options.bandwidth, options.window)).run()


if __name__ == "__main__":
    main()
