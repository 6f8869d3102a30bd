"""What the service manager keeps while the service restarts: the listening sockets, and the tickets.

    kept-remote-1f2e3d4c   a listener; the number tells how it is configured
    tickets                sealed memory (handover.py)

Sockets are kept from the start on, so that clients wait for the next process, also after a crash. The tickets are kept
only from an orderly end to the next start: a crash forgets them, and so does `systemctl stop`.

Knows the names and when; what is in a ticket is the business of the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any, Optional

from ovirt_imageio import errors
from ovirt_imageio.config import Config
from ovirt_imageio.httpd.listener import Listener, UnixAddress, adopt
from ovirt_imageio.service import activation, handover, places
from ovirt_imageio.service.activation import KEPT, TICKETS
from ovirt_imageio.service.notify import Notifier

__all__ = ["Keeper"]

log = logging.getLogger("server")


class Keeper:
    """Takes what was kept for this process, and lets the manager keep what the next one needs.

    Threads: the main one only.
    """

    def __init__(self, notifier: Notifier, kept: Mapping[str, list[int]]) -> None:
        self._notifier = notifier
        self._kept = dict(kept)

    def take_listeners(self, config: Config, given: Collection[str] = ()) -> dict[str, Listener]:
        """Return the listeners that were kept and are configured as before, by name; the manager lets go of others.

        given: the names of listeners that are there already.
        """
        wanted = {kept_name(config, name): name for name in places.configured(config) if name not in given}
        found: dict[str, Listener] = {}
        left = []
        for title in [title for title in self._kept if title != TICKETS]:
            listener = take(title, self._kept.pop(title))
            if listener is not None and title in wanted:
                found[wanted[title]] = listener
                continue
            left.append(title)
            if listener is not None:
                listener.close()
        if left and not (all([self._notifier.forget(title) for title in left]) and self._notifier.wait()):
            log.warning("The service manager does not let go of old sockets: their addresses may be in use")
        return found

    def take_tickets(self) -> Optional[dict[str, Any]]:
        """Return what the process before left, or None; the manager lets go of it, so that it is used once."""
        descriptors = self._kept.pop(TICKETS, [])
        if not descriptors:
            return None
        document = None
        try:
            if len(descriptors) != 1:
                raise handover.invalid(f"{len(descriptors)} descriptors", "one")
            document = handover.unseal(descriptors[0])
        except errors.InvalidValue as error:
            log.error("All tickets of before the restart are forgotten: %s", error)
        finally:
            close_all(descriptors)
        if not self._notifier.forget(TICKETS) or not self._notifier.wait():
            # A crash would bring them back, and with them those that were removed meanwhile.
            log.error("All tickets of before the restart are forgotten: the service manager does not let go of them")
            return None
        return document

    def keep_listeners(self, config: Config, listeners: Mapping[str, Listener]) -> None:
        """Let the manager keep listeners that it has not."""
        for name, listener in listeners.items():
            if self._notifier.keep(kept_name(config, name), [sock.fileno() for sock in listener.sockets]):
                listener.keep_file()

    def hand_over(self, document: dict[str, Any]) -> bool:
        """Leave a document to the next process; return False if that will not find it."""
        try:
            descriptor = handover.seal(document)
        except OSError as error:
            log.error("The next process will not know the tickets: %s", error.strerror)
            return False
        try:
            # Until the manager has it, it is in its queue: a message of a process that ended would be lost.
            if self._notifier.keep(TICKETS, [descriptor]) and self._notifier.wait():
                return True
        finally:
            os.close(descriptor)
        log.warning("The next process will not know the tickets: the service manager did not take them")
        return False


def kept_name(config: Config, name: str) -> str:
    """Return the name under which a listener is kept: another one if it is configured in another way."""
    return f"{KEPT}{name}-{hashlib.sha256(places.configured(config)[name].encode()).hexdigest()[:8]}"


def take(title: str, descriptors: list[int]) -> Optional[Listener]:
    """Return the listener that was kept, or None, with everything closed, if clients cannot reach it."""
    sockets = []
    with contextlib.ExitStack() as undo:
        for descriptor in descriptors:
            try:
                sockets.append(undo.enter_context(activation.opened(descriptor, title)))
            except errors.InvalidValue as error:
                log.warning("%s", error)
        if len(sockets) != len(descriptors):
            return None
        listener = adopt(sockets)
        address = listener.address
        if isinstance(address, UnixAddress) and not address.is_abstract and not os.path.exists(address.path):
            log.warning("The file of the socket that was kept is gone: %s", address)
            return None
        undo.pop_all()
        return listener


def close_all(descriptors: list[int]) -> None:
    """Close descriptors, of which some may not be open."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
