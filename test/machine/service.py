"""The installed service, as the administrator of the machine handles it.

Time-outs are those of a machine that is emulated on a busy one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    *("CERTIFICATE", "CONTROL", "DEADLINE", "LOCAL", "UNIT", "Journal", "Service"),
    *("ask", "connect_unix", "output_of", "run", "slow_download", "wait_until"),
]

UNIT = "ovirt-imageio.service"
SOCKET = "ovirt-imageio.socket"
DEADLINE = 120
CERTIFICATE = Path("/etc/ovirt-imageio/pki/cert.pem")
KEY = CERTIFICATE.with_name("key.pem")
CONTROL = "/run/ovirt-imageio/sock"
LOCAL = "\0/org/ovirt/imageio"
OWN_SETTINGS = Path("/etc/ovirt-imageio/conf.d/60-test.conf")
OWN_DROP_IN = Path(f"/run/systemd/system/{UNIT}.d/60-test.conf")


def run(*command: str, timeout: float = DEADLINE, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its output is one text."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
    return subprocess.run(command, timeout=timeout, check=False, **options)


def output_of(*command: str, **options: Any) -> str:
    """Return what a command printed, which succeeds."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Return what the condition returns as soon as it is true."""
    end = time.monotonic() + deadline
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"After {deadline} s still not: {what}"
        # Looking takes a processor that what is waited for may need.
        time.sleep(0.3)


class Journal:
    """What the service wrote to the journal since this was made."""

    def __init__(self) -> None:
        self._cursor = output_of("journalctl", "--lines=0", "--show-cursor").rpartition("-- cursor: ")[2].strip()

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        """Return the entries of the unit, and what systemd says of it."""
        text = output_of(
            "journalctl", f"--after-cursor={self._cursor}", "--output=json", f"--unit={UNIT}", "--all", *matches
        )
        return [json.loads(line) for line in text.splitlines()]

    def text(self) -> str:
        return "\n".join(str(entry["MESSAGE"]) for entry in self.entries())

    def wait(self, pattern: str, count: int = 1) -> None:
        wait_until(lambda: len(re.findall(pattern, self.text())) >= count, f"{pattern} in the journal")


class Service:
    """The unit and its daemon."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._is_changed = False

    def show(self, name: str, unit: str = UNIT) -> str:
        """Return a property of the unit."""
        return output_of("systemctl", "show", "--property", name, "--value", unit).strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def systemctl(self, *arguments: str) -> str:
        return output_of("systemctl", *arguments)

    def configure(self, text: str) -> None:
        """Add to the configuration until the end of the test; it is in force from the next start or reload on."""
        self._is_changed = True
        OWN_SETTINGS.write_text(text)

    def drop_in(self, text: str) -> None:
        """Add to the unit until the end of the test."""
        self._is_changed = True
        OWN_DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        OWN_DROP_IN.write_text(text)
        self.systemctl("daemon-reload")

    def listen(self) -> None:
        """Let systemd listen in place of the daemon, until the end of the test."""
        self._is_changed = True
        self.systemctl("stop", UNIT)
        self.systemctl("start", SOCKET)

    def stop(self) -> None:
        """Stop it, whatever its state is."""
        run("systemctl", "stop", UNIT)
        run("systemctl", "reset-failed", UNIT)

    def restore(self) -> None:
        """Be as the packages and the page left it: if the test changed something, stopped."""
        if self._is_changed:
            run("systemctl", "stop", SOCKET)
            self.stop()
            OWN_SETTINGS.unlink(missing_ok=True)
            OWN_DROP_IN.unlink(missing_ok=True)
            self.systemctl("daemon-reload")

    def control(self, method: str, path: str, document: Any = None) -> tuple[int, bytes]:
        """Ask the control service; return status and body."""
        with contextlib.closing(connect_unix(CONTROL)) as connection:
            connection.request(method, path, None if document is None else json.dumps(document))
            response = connection.getresponse()
            return response.status, response.read()

    def add_ticket(self, url: str, size: int, **fields: Any) -> str:
        """Add a ticket; return the path of its image."""
        ticket_id = str(uuid.uuid4())
        ticket = {"uuid": ticket_id, "url": url, "size": size, "ops": ["read", "write"], "timeout": 3000, **fields}
        status, body = self.control("PUT", f"/tickets/{ticket_id}", ticket)
        assert status == 200, body
        return f"/images/{ticket_id}"

    def connect(self, **options: Any) -> http.client.HTTPSConnection:
        """Return a connection to the remote listener."""
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        return http.client.HTTPSConnection("localhost", 54322, context=context, timeout=DEADLINE, **options)

    def connect_local(self, address: str = LOCAL) -> http.client.HTTPConnection:
        """Return a connection to the local listener."""
        return connect_unix(address)


def connect_unix(address: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(DEADLINE)
    connection.sock.connect(address)
    return connection


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> bytes:
    """Send the only request of a connection, which is answered with success; return the body."""
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
    assert response.status in (200, 204, 206), (method, path, response.status, content)
    return content


@contextlib.contextmanager
def slow_download(connection: http.client.HTTPConnection, path: str) -> Iterator[http.client.HTTPResponse]:
    """Begin a download, of which the block reads what is left."""
    connection.sock or connection.connect()
    # So that not all of it fits into the buffers between.
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.request("GET", path)
    with contextlib.closing(connection), connection.getresponse() as response:
        assert response.status == 200
        yield response
