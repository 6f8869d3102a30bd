"""Tell systemd how we are: sd_notify(3), a datagram for each message.

Speaks the protocol itself, so that nothing needs to be installed. Knows nothing of what runs.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Mapping, Sequence
from typing import Optional

__all__ = ["Notifier"]

log = logging.getLogger("server")

# What is only said is lost when the manager is so busy that it cannot be told within a second.
BRIEFLY = 1.0

# When it has to take or give something, we wait: without an answer tickets are lost. Together with the drain, that is
# less than TimeoutStopSec= of the unit.
PATIENTLY = 20.0


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

    @property
    def has_manager(self) -> bool:
        """True if a service manager listens to us, which may also keep descriptors."""
        return bool(self._address)

    def keep(self, name: str, descriptors: Sequence[int]) -> bool:
        """Let the manager keep descriptors, and give them to the next process; return False if it was not told.

        They are gone when the service is stopped, and not only restarted.
        """
        return self._send(f"FDSTORE=1\nFDNAME={name}", descriptors, PATIENTLY)

    def forget(self, name: str) -> bool:
        """Let the manager keep the descriptors of this name no longer; return False if it was not told."""
        return self._send(f"FDSTOREREMOVE=1\nFDNAME={name}", (), PATIENTLY)

    def wait(self, seconds: float = PATIENTLY) -> bool:
        """Wait until the manager has done what it was told; return False if that takes too long."""
        reader, writer = os.pipe()
        try:
            # When it comes to this message it closes the pipe, and ours is the other end.
            is_told = self._send("BARRIER=1", [writer], seconds)
        finally:
            os.close(writer)
        try:
            poller = select.poll()
            poller.register(reader, 0)
            return is_told and bool(poller.poll(seconds * 1000))
        finally:
            os.close(reader)

    def _send(self, message: str, descriptors: Sequence[int] = (), seconds: float = BRIEFLY) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(seconds)
                # Not by an argument of send_fds(), which Python 3.9 to 3.11 ignore.
                sender.connect(self._address)
                socket.send_fds(sender, [message.encode()], list(descriptors))
        except OSError as error:
            log.warning("Cannot tell systemd %s: %s", message.replace("\n", " "), error)
            return False
        return True
