"""Tell systemd how we are: sd_notify(3), a datagram for each message.

Speaks the protocol itself, so that nothing needs to be installed. Knows nothing of what runs.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Optional

__all__ = ["Notifier"]

log = logging.getLogger("server")


class Notifier:
    """Sends messages to the service manager, or nowhere if there is none.

    Threads: any.
    """

    def __init__(self, address: str = "", watchdog_interval: Optional[float] = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # Seconds between two alive() that keep the manager from restarting us; None: it does not watch.
        self.watchdog_interval = watchdog_interval

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """Return the notifier for the manager that started us."""
        usec = environ.get("WATCHDOG_USEC", "")
        is_watched = usec.isdigit() and environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # sd_watchdog_enabled(3) advises half of the time.
        return cls(environ.get("NOTIFY_SOCKET", ""), int(usec) / 2_000_000 if is_watched else None)

    def ready(self) -> None:
        """We serve."""
        self._send("READY=1")

    def stopping(self) -> None:
        """We are about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show a line in `systemctl status`."""
        self._send("STATUS=" + text.replace("\n", " "))

    def alive(self) -> None:
        """We are well."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # The manager may be busy, but we have better things to do than to wait for it.
                sender.settimeout(1.0)
                sender.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("Cannot tell systemd %s: %s", message, error)
