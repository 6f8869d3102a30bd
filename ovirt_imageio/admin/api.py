"""The client of the control service.

Knows the configuration, to find the service, and HTTP; nothing of how the service works.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Optional, Protocol

from ovirt_imageio import config as configuration
from ovirt_imageio import errors
from ovirt_imageio.net import connect

__all__ = ["DEFAULT_CONF_DIR", "Client", "ClientError", "Error", "ServerError", "load_config"]

DEFAULT_CONF_DIR = configuration.CONF_DIR

DEFAULT_TIMEOUT = 60

# We wait this much longer than the service may take to answer.
MARGIN = 10


class Control(Protocol):
    """Where the control service is. A configuration that does not tell its remove_timeout has the default one."""

    @property
    def transport(self) -> str:
        """The words unix or tcp."""

    @property
    def socket(self) -> str:
        """The path of the Unix socket."""

    @property
    def port(self) -> int:
        """The TCP port."""


class HasControl(Protocol):
    """A configuration, as far as it is used here."""

    @property
    def control(self) -> Control:
        """The section of the control service."""


class Error(Exception):
    """Whatever goes wrong here."""


@dataclass(eq=False)
class ClientError(Error):
    """We could not talk to the service at `address`: `reason`."""

    address: str
    reason: str

    def __str__(self) -> str:
        return f"Cannot talk to {self.address}: {self.reason}; is ovirt-imageio running, and may you use its socket?"


@dataclass(eq=False)
class ServerError(Error):
    """The service refused: an HTTP status and its words."""

    code: int
    message: str

    def __str__(self) -> str:
        return f"{self.code} {http.client.responses.get(self.code, '')}: {self.message}"


def load_config(conf_dir: str = DEFAULT_CONF_DIR) -> configuration.Config:
    """Return the configuration of the daemon that uses this directory. Raises ValueError if it cannot be used."""
    try:
        return configuration.load(conf_dir)
    except errors.ConfigError as e:
        raise ValueError(str(e)) from e


class Client:
    """Talks to the control service that `cfg` describes; connects when it is first used, and keeps the connection.

    `timeout` is for the answer to each request, but removals may take as long as the service is configured to wait.
    Raises ValueError if the configuration does not tell where the service is; every method raises ClientError and
    ServerError. A context manager that closes the connection.

    Threads: one at a time.
    """

    def __init__(self, cfg: HasControl, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout
        remove_timeout = getattr(cfg.control, "remove_timeout", configuration.Config().control.remove_timeout)
        self._remove_timeout = max(timeout, remove_timeout + MARGIN)
        self._connection = _Connection(_address(cfg), timeout)

    def add_ticket(self, ticket: Mapping[str, Any]) -> None:
        """Add a ticket; one that has the same uuid is canceled and replaced."""
        uuid = ticket.get("uuid") if isinstance(ticket, Mapping) else None
        if not isinstance(uuid, str) or not uuid:
            raise ValueError("A ticket must be a JSON object with a uuid")
        self._request("PUT", _path(uuid), ticket)

    def get_ticket(self, ticket_id: str) -> dict[str, Any]:
        """Return the state of a ticket."""
        info: dict[str, Any] = self._request("GET", _path(ticket_id))
        return info

    def wait(self, ticket_id: str, since: Optional[int] = None, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """Return the state of a ticket as soon as its "version" is not `since`, after `timeout` seconds in any case.

        Without `since`: when it changes from now on.

        >>> info = client.get_ticket(ticket_id)
        >>> while info["active"]:
        ...     info = client.wait(ticket_id, since=info["version"])
        """
        query = {"wait": int(timeout)}
        if since is not None:
            query["since"] = since
        path = f"{_path(ticket_id)}?{urllib.parse.urlencode(query)}"
        info: dict[str, Any] = self._request("GET", path, timeout=timeout + self._timeout)
        return info

    def list_tickets(self) -> list[dict[str, Any]]:
        """Return the state of all tickets, without their secret ids: see "transfer_id" and "uuid_prefix"."""
        infos: list[dict[str, Any]] = self._request("GET", "/tickets")
        return infos

    def find_tickets(self, text: str) -> list[dict[str, Any]]:
        """Return the state of the tickets that text may mean, with their secret ids.

        That is the one with this id; else those with this transfer id; else all whose id or transfer id begins with it.
        """
        if not text:
            raise ValueError("A ticket id must not be empty")
        infos: list[dict[str, Any]] = self._request("GET", f"/tickets?match={urllib.parse.quote(text, safe='')}")
        return infos

    def mod_ticket(self, ticket_id: str, changes: Mapping[str, Any]) -> None:
        """Change a ticket: its "timeout", counted from now, or its "inactivity_timeout"."""
        self._request("PATCH", _path(ticket_id), changes)

    def del_ticket(self, ticket_id: str) -> None:
        """Remove a ticket, after what runs on it has ended; one that does not exist is removed already."""
        self._request("DELETE", _path(ticket_id), timeout=self._remove_timeout)

    def del_all_tickets(self) -> None:
        """Remove all tickets, like del_ticket()."""
        self._request("DELETE", "/tickets/", timeout=self._remove_timeout)

    def start_profile(self, clock: str = "cpu") -> None:
        """Start the profiler of the service, measuring "cpu" or "wall" time."""
        self._request("POST", f"/profile/?run=y&clock={urllib.parse.quote(clock)}")

    def stop_profile(self) -> None:
        """Stop it; the service writes what it found to the file in its configuration."""
        self._request("POST", "/profile/?run=n")

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self.close()

    def _request(self, method: str, path: str, document: Any = None, timeout: Optional[float] = None) -> Any:
        """Send a request; return the decoded body of the answer, None if that is empty."""
        body = None if document is None else json.dumps(document).encode()
        status, data = self._connection.exchange(method, path, body, timeout or self._timeout)
        if not 200 <= status < 300:
            raise ServerError(status, data.decode(errors="replace").strip())
        try:
            return json.loads(data) if data else None
        except ValueError as e:
            raise ClientError(self._connection.address, f"its answer is not JSON: {e}") from e


class _Connection(http.client.HTTPConnection):
    """HTTP over TCP or a Unix socket, connected again when the service closed it between two requests."""

    def __init__(self, address: connect.Address, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address = address

    @property
    def address(self) -> str:
        """The address as people read it."""
        if isinstance(self._address, str):
            return f"the socket {self._address.replace(chr(0), '@', 1)}"
        host, port = self._address
        return f"{host}:{port}"

    def connect(self) -> None:
        """Connect; called by the library."""
        self.sock = connect.connect(self._address, self.timeout or DEFAULT_TIMEOUT)

    def exchange(self, method: str, path: str, body: Optional[bytes], timeout: float) -> tuple[int, bytes]:
        """Send a request and return the status and body of the answer. Raises ClientError."""
        is_reused = self.sock is not None
        self.timeout = timeout
        if self.sock is not None:
            self.sock.settimeout(timeout)
        try:
            self.request(method, path, body)
            response = self.getresponse()
            return response.status, response.read()
        except (ConnectionError, http.client.BadStatusLine) as e:
            self.close()
            if is_reused:
                # It closed while we were idle, and did nothing with this request.
                return self.exchange(method, path, body, timeout)
            raise ClientError(self.address, _reason(e)) from e
        except (OSError, http.client.HTTPException) as e:
            self.close()
            raise ClientError(self.address, _reason(e)) from e


def _address(cfg: HasControl) -> connect.Address:
    control = cfg.control
    transport = control.transport.lower()
    if transport == "unix":
        if not control.socket:
            raise ValueError(
                "[control] socket is empty: the service listens on a random name, which clients cannot find"
            )
        return control.socket
    if transport == "tcp":
        return "localhost", control.port
    raise ValueError(f"[control] transport is {control.transport!r}, expected unix or tcp")


def _path(ticket_id: str) -> str:
    if not ticket_id:
        # This would mean all of them.
        raise ValueError("A ticket id must not be empty")
    return f"/tickets/{urllib.parse.quote(ticket_id, safe='')}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
