"""Show people how a transfer goes: one line that changes on a terminal, few plain lines elsewhere.

Knows what a line is; is told everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ovirt_imageio import units
from ovirt_imageio.service.metrics import Metrics

__all__ = ["Traffic", "TrafficDisplay"]

# Back to the first column, and clear the line.
REWIND = "\r\x1b[K"
# Where lines stay, a new one comes this often while something moves.
PLAIN_INTERVAL = 10.0


class Traffic(Metrics):
    """Counts the bytes that clients sent and received.

    Threads: any; with more than one transfer the counts are not exact.
    """

    def __init__(self) -> None:
        super().__init__()
        self.received = 0
        self.sent = 0

    def bytes_moved(self, backend: str, operation: str, count: int) -> None:
        """Count them for the way that they took."""
        super().bytes_moved(backend, operation, count)
        if operation == "read":
            self.sent += count
        else:
            self.received += count


class TrafficDisplay:
    """Shows what moves, as often as that makes sense.

    say: writes a text, with an end of its own. width: of the terminal; None where lines stay: there a line tells of
    each transfer when it is over, and of long ones now and then.
    """

    def __init__(self, traffic: Traffic, say: Callable[[str, str], None], width: Optional[int]) -> None:
        self._traffic = traffic
        self._say = say
        self._width = width
        self._was_active = False
        self._shown = 0.0
        self._text = ""
        # What was moved when the last line was written.
        self._told = (0, 0)

    def update(self, now: float, infos: Sequence[Mapping[str, Any]]) -> None:
        """Show where the transfers are, if there is news; infos is what the store tells of them."""
        is_active = any(info["active"] for info in infos)
        speed = f"{units.size(sum(info['rate'] for info in infos))}/s" if is_active else "idle"
        text = f"{self._moved()}, {speed}, connections: {sum(info['connections'] for info in infos)}"
        if self._width is not None:
            if text != self._text:
                self._say(f"{REWIND}{text[: self._width - 1]}", "")
        else:
            if is_active and not self._was_active:
                self._shown = now
            is_over = not is_active and self._told != self._counts()
            if is_over or (is_active and now - self._shown >= PLAIN_INTERVAL):
                self._tell(text)
                self._shown = now
        self._text = text
        self._was_active = is_active

    def finish(self) -> None:
        """Tell of what ended since the last look; leave the cursor on a line of its own."""
        if self._width is not None:
            if self._text:
                self._say("", "\n")
        elif self._told != self._counts():
            self._tell(self._moved())

    def _counts(self) -> tuple[int, int]:
        return self._traffic.received, self._traffic.sent

    def _moved(self) -> str:
        return f"received {units.size(self._traffic.received)}, sent {units.size(self._traffic.sent)}"

    def _tell(self, line: str) -> None:
        self._told = self._counts()
        self._say(line, "\n")
