"""Show people how a transfer goes: one line that changes on a terminal, few plain lines elsewhere.

Knows text streams; is told everything else.
"""

from __future__ import annotations

from typing import TextIO

from ovirt_imageio import units
from ovirt_imageio.service.metrics import Metrics

__all__ = ["Progress", "Traffic"]

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


class Progress:
    """Shows the state that it is given, as often as that makes sense."""

    def __init__(self, stream: TextIO, is_live: bool) -> None:
        self._stream = stream
        self._is_live = is_live
        self._was_active = False
        self._shown = 0.0
        self._text = ""

    def update(self, now: float, traffic: Traffic, rate: float, connections: int, is_active: bool) -> None:
        """Show where we are, if there is news."""
        moved = f"received {units.size(traffic.received)}, sent {units.size(traffic.sent)}"
        speed = f"{units.size(rate)}/s" if is_active else "idle"
        text = f"{moved}, {speed}, connections: {connections}"
        if self._is_live:
            if text != self._text:
                self._write(f"{REWIND}{text}")
        elif is_active != self._was_active or (is_active and now - self._shown >= PLAIN_INTERVAL):
            self._shown = now
            self._write(f"{text}\n")
        self._text = text
        self._was_active = is_active

    def finish(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._is_live and self._text:
            self._write("\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
