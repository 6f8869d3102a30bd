"""Show people who does what: lines that change on a terminal, few plain lines elsewhere.

    received 0 bytes, sent 5.00 GiB, 310.00 MiB/s, connections: 4
      192.0.2.7  out  HTTP  310.00 MiB/s  5.00 GiB

Knows what a line is; is told everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ovirt_imageio import units
from ovirt_imageio.measure.clock import RateMeter
from ovirt_imageio.service.metrics import Metrics
from ovirt_imageio.terminal.traffic import client_line, rate

__all__ = ["Traffic", "TrafficDisplay"]

# Back to the first column, and clear the line; go up so many lines; clear what is below.
REWIND = "\r\x1b[K"
UP = "\x1b[{}A"
CLEAR_BELOW = "\x1b[J"

# Where lines stay, a new one comes this often while something moves.
PLAIN_INTERVAL = 10.0

# So many addresses are remembered, and so many lines of clients shown at once.
MAX_CLIENTS = 1000
MAX_LINES = 10


@dataclass
class Client:
    """What the client at one address has done."""

    address: str
    received: int = 0
    sent: int = 0
    # By which the last bytes moved.
    protocol: str = "http"
    # What the display has seen of it.
    meter: RateMeter = field(default_factory=RateMeter)
    told: int = 0

    @property
    def moved(self) -> int:
        """How many bytes moved."""
        return self.received + self.sent

    def line(self) -> str:
        """Return what it does."""
        return "  " + client_line(self.address, self.protocol, self.received, self.sent, self.meter.rate())


class Traffic(Metrics):
    """Counts the bytes that clients sent and received.

    Threads: any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.received = 0
        self.sent = 0
        self._mutex = threading.Lock()
        # The one that moved last comes last.
        self._clients: dict[str, Client] = {}

    def client_moved(self, client: str, operation: str, kind: str, count: int) -> None:
        """Count them for the way that they took, and for the client."""
        with self._mutex:
            known = self._clients[client] = self._clients.pop(client, Client(client))
            if len(self._clients) > MAX_CLIENTS:
                del self._clients[next(iter(self._clients))]
            known.protocol = "nbd" if operation == "nbd" else "http"
            if kind == "read":
                self.sent += count
                known.sent += count
            else:
                self.received += count
                known.received += count

    def clients(self) -> list[Client]:
        """Return the clients, the one that moved last first."""
        with self._mutex:
            return list(reversed(self._clients.values()))


class TrafficDisplay:
    """Shows what moves, as often as that makes sense.

    say: writes a text, with an end of its own. size: columns and lines of the terminal; None where lines stay: there
    lines tell of clients when all is over, and of long transfers now and then.

    Threads: one.
    """

    def __init__(self, traffic: Traffic, say: Callable[[str, str], None], size: Optional[tuple[int, int]]) -> None:
        self._traffic = traffic
        self._say = say
        self._size = size
        self._was_active = False
        self._shown = 0.0
        self._lines: list[str] = []
        # What was moved when the last line was written.
        self._told = (0, 0)

    def update(self, now: float, infos: Sequence[Mapping[str, Any]]) -> None:
        """Show where the transfers are, if there is news; infos is what the store tells of them."""
        clients = self._traffic.clients()
        for client in clients:
            client.meter.sample(now, client.moved)
        is_active = any(info["active"] for info in infos)
        speed = rate(sum(info["rate"] for info in infos)) if is_active else "idle"
        text = f"{self._moved()}, {speed}, connections: {sum(info['connections'] for info in infos)}"
        if self._size is not None:
            busy = [client for client in clients if client.meter.rate() > 0] if is_active else []
            # In an order that stays, whoever moved last.
            busy.sort(key=lambda client: client.address)
            self._show([text, *(client.line() for client in busy)], *self._size)
        else:
            if is_active and not self._was_active:
                self._shown = now
            is_over = not is_active and self._told != self._counts()
            if is_over or (is_active and now - self._shown >= PLAIN_INTERVAL):
                self._tell(text)
                self._shown = now
        self._was_active = is_active

    def finish(self) -> None:
        """Tell of what ended since the last look; leave the cursor on a line of its own."""
        if self._size is not None:
            if self._lines:
                self._say("", "\n")
        elif self._told != self._counts():
            self._tell(self._moved())

    def _show(self, lines: list[str], columns: int, height: int) -> None:
        """Write lines over those of before; none may take two, and the first one must not leave the screen."""
        room = max(1, min(height - 1, 1 + MAX_LINES))
        if len(lines) > room:
            lines = [*lines[: room - 1], f"  ... {len(lines) - room + 1} more"] if room > 1 else lines[:1]
        lines = [line[: columns - 1] for line in lines]
        if lines == self._lines:
            return
        back = UP.format(len(self._lines) - 1) if len(self._lines) > 1 else ""
        below = CLEAR_BELOW if len(self._lines) > len(lines) else ""
        self._say(back + "\n".join(f"{REWIND}{line}" for line in lines) + below, "")
        self._lines = lines

    def _counts(self) -> tuple[int, int]:
        return self._traffic.received, self._traffic.sent

    def _moved(self) -> str:
        return f"received {units.size(self._traffic.received)}, sent {units.size(self._traffic.sent)}"

    def _tell(self, line: str) -> None:
        """Write a line, and one for each client that moved something since the last one."""
        self._told = self._counts()
        moved = [client for client in self._traffic.clients() if client.told < client.moved]
        for client in moved:
            client.told = client.moved
        self._say("\n".join([line, *(client.line() for client in moved[:MAX_LINES])]), "\n")
