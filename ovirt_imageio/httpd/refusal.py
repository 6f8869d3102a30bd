"""A request that is answered with an error, wherever the reason was found.

Pure: imports no socket, file, thread, time or logging.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from ovirt_imageio import errors

__all__ = ["ClientGone", "Refusal", "phrase_of"]


@dataclass(eq=False)
class Refusal(errors.Error):
    """Answer with `status` and a plain `text` of one line; close the connection if the peer is out of step.

    The server raises it for what it cannot parse, a handler may raise it, and the application's `translate` returns it
    for the errors of lower layers.
    """

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False

    def __str__(self) -> str:
        return f"{self.status} {phrase_of(self.status)}: {self.text}"


@dataclass(eq=False)
class ClientGone(errors.Error):
    """The client closed the connection, or takes nothing for too long: there is no client to answer."""

    reason: str

    def __str__(self) -> str:
        return f"The client is gone: {self.reason}"


def phrase_of(status: int) -> str:
    """Return the words for a status; one that another server made up has no registered ones."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
