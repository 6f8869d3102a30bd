"""The real daemon, as a process of its own, on loopback, with a configuration in a temporary folder.

    with daemon.running(tmp_path) as running:
        url = running.add_ticket(url=f"file://{image}", size=size, ops=["read"])
        with urllib.request.urlopen(url, context=running.tls) as response:
            ...
        running.log()

Every test that speaks to the whole program starts it with this.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from fakes.waiting import DEADLINE, wait_until
from real import certificates

__all__ = ["Daemon", "running", "start", "write_config"]

ROOT = Path(__file__).resolve().parents[2]

LISTENING = re.compile(r"Listening service=(\w+)\.service address=(\S+)")


@dataclasses.dataclass
class Daemon:
    """A daemon that is ready."""

    process: subprocess.Popen[bytes]
    folder: Path
    # Where each listener listens, as the log says it.
    addresses: Mapping[str, str]
    ca_file: str

    @property
    def port(self) -> int:
        """The port of the remote listener."""
        return int(self.addresses["remote"].rpartition(":")[2])

    @property
    def tls(self) -> ssl.SSLContext:
        """A context for clients that trusts this daemon."""
        return ssl.create_default_context(cafile=self.ca_file)

    @property
    def local_socket(self) -> str:
        """The abstract name of the local listener."""
        return "\0" + self.addresses["local"][1:]

    @property
    def control_socket(self) -> str:
        """The path of the control listener."""
        return str(self.folder / "control.sock")

    def url(self, ticket_id: str) -> str:
        """Return the transfer URL of a ticket."""
        return f"https://localhost:{self.port}/images/{ticket_id}"

    def connect(self) -> http.client.HTTPSConnection:
        """Return a connection to the remote listener; the caller closes it."""
        return http.client.HTTPSConnection("localhost", self.port, context=self.tls, timeout=DEADLINE)

    def connect_unix(self, address: str) -> http.client.HTTPConnection:
        """Return a connection to a Unix socket; the caller closes it."""
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(DEADLINE)
        connection.sock.connect(address)
        return connection

    def control(self, method: str, path: str, document: Any = None) -> tuple[int, bytes]:
        """Ask the control listener; return status and body."""
        with contextlib.closing(self.connect_unix(self.control_socket)) as connection:
            connection.request(method, path, None if document is None else json.dumps(document))
            response = connection.getresponse()
            return response.status, response.read()

    def add_ticket(self, ticket_id: Optional[str] = None, **fields: Any) -> str:
        """Add a ticket; return its transfer URL."""
        ticket_id = ticket_id or str(uuid.uuid4())
        ticket = {"uuid": ticket_id, "ops": ["read", "write"], "timeout": 300, **fields}
        status, body = self.control("PUT", f"/tickets/{ticket_id}", ticket)
        assert status == 200, body
        return self.url(ticket_id)

    def log(self) -> str:
        """Return what was logged until now."""
        return (self.folder / "daemon.log").read_text()

    def wait_log(self, pattern: str, count: int = 1) -> None:
        """Wait until the log has the pattern so many times."""

        def is_logged() -> bool:
            has_ended = self.process.poll() is not None
            if len(re.findall(pattern, self.log())) >= count:
                return True
            assert not has_ended, f"The daemon ended:\n{self.log()}"
            return False

        wait_until(is_logged, lambda: f"No {pattern!r} in:\n{self.log()}")

    def freeze(self) -> None:
        """Stop the process where it is, until SIGCONT; no thread of it runs any more.

        The kernel tells one thread of the signal, which tells the others when it gets a processor: on a busy machine
        they go on meanwhile, and answer requests.
        """
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        wait_until(lambda: all("\nState:\tT" in (task / "status").read_text() for task in tasks.iterdir()))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


def write_config(folder: Path, text: str = "", *, tls: Optional[certificates.Certificate] = None) -> Path:
    """Write a configuration that disturbs no other daemon; `text` comes on top. Return the folder for --conf-dir."""
    tls = tls or certificates.certificate()
    files = folder / "etc" / "conf.d"
    files.mkdir(parents=True, exist_ok=True)
    (files / "50-test.conf").write_text(f"""\
[daemon]
drop_privileges = false
run_dir = {folder}
[tls]
cert_file = {tls.cert_file}
key_file = {tls.key_file}
ca_file = {tls.ca_file}
[remote]
host = localhost
port = 0
[local]
socket =
[control]
socket = {folder}/control.sock
[profile]
filename = {folder}/profile
[handler_logfile]
args = ("{folder}/daemon.log",)
""")
    (files / "60-test.conf").write_text(text)
    return folder / "etc"


def start(
    folder: Path, arguments: Sequence[str] = (), *, root: Path = ROOT, wrapper: Sequence[str] = (), **options: Any
) -> subprocess.Popen[bytes]:
    """Start the program in `root`, by a wrapper, with the configuration in the folder; nothing is awaited.

    Of the options `environ` has variables for the program; None takes one away.
    """
    command = [*wrapper, sys.executable, "-m", "ovirt_imageio.service.cli", "-c", str(folder / "etc"), *arguments]
    variables = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "error", **options.pop("environ", {})}
    environ = {name: value for name, value in variables.items() if value is not None}
    return subprocess.Popen(command, env=environ, cwd=root, **options)


@contextlib.contextmanager
def running(
    folder: Path,
    text: str = "",
    *,
    arguments: Sequence[str] = (),
    environ: Optional[Mapping[str, str]] = None,
    tls: Optional[certificates.Certificate] = None,
    **options: Any,
) -> Iterator[Daemon]:
    """Run a daemon; text is configuration on top of the default for tests, options are those of start()."""
    tls = tls or certificates.certificate()
    write_config(folder, text, tls=tls)
    log = folder / "daemon.log"
    log.unlink(missing_ok=True)
    log.touch()
    with start(folder, arguments, environ=environ or {}, **options) as process:
        daemon = Daemon(process, folder, {}, tls.ca_file)
        try:
            daemon.wait_log(r"\[server\] Ready")
            daemon.addresses = dict(LISTENING.findall(daemon.log()))
            yield daemon
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(DEADLINE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise AssertionError(f"The daemon does not end:\n{daemon.log()}") from None
