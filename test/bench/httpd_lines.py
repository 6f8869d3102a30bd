"""Many small requests, and many idle connections: what the HTTP server costs when the storage costs nothing."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from bench.lines import Line, Side
from real import daemon

__all__ = ["LINES"]

SERVER = Path(__file__).with_name("null_server.py")
DISK_SIZE = 1 << 40
REQUEST_SIZE = 4096

# Long enough for wrk to say what a second gives, short enough for five rounds.
SECONDS = 2

IDLE_CONNECTIONS = 1000

OPTIONS_SCRIPT = 'wrk.method = "OPTIONS"\n'


class NullServer:
    """The null server, as a process of its own."""

    def __init__(self) -> None:
        self.url = ""
        self.pid = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        command = [sys.executable, str(SERVER), str(DISK_SIZE)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            self.url = process.stdout.readline().strip()
            self.pid = process.pid
            yield
            # The end of its input ends it.

    def get(self, connections: int) -> float:
        """Return how many GET requests of 4 KiB are answered in a second."""
        return wrk(self.url, connections, "-H", f"Range: bytes=0-{REQUEST_SIZE - 1}")

    def options(self, connections: int) -> float:
        """Return how many OPTIONS requests are answered in a second."""
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(OPTIONS_SCRIPT)
            script.flush()
            return wrk(self.url, connections, "-s", script.name)

    def idle_memory(self) -> float:
        """Return the MiB that the server takes while many clients that did one request wait."""
        host, port = re.findall(r"//(.*):(\d+)/", self.url)[0]
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        request = f"OPTIONS {self.url.partition(port)[2]} HTTP/1.1\r\n\r\n".encode()
        with contextlib.ExitStack() as stack:
            for _ in range(IDLE_CONNECTIONS):
                sock = stack.enter_context(context.wrap_socket(socket.create_connection((host, int(port)))))
                sock.sendall(request)
                assert sock.recv(4096).startswith(b"HTTP/1.1 200")
            return resident_memory(self.pid)


def wrk(url: str, connections: int, *options: str) -> float:
    """Return the requests per second that wrk counts; it fails if any was not answered well."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", *options, url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    match = re.search(r"Requests/sec: +([0-9.]+)", output)
    assert match, output
    return float(match.group(1))


def resident_memory(pid: int) -> float:
    """Return the MiB that a process has in memory."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match.group(1)) / 1024


def start_daemon() -> float:
    """Return the seconds from the start of the daemon until it listens."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        daemon.write_config(Path(folder))
        started = time.monotonic()
        stack.enter_context(daemon.running(Path(folder)))
        return time.monotonic() - started


def line(name: str, unit: str, about: str, measure: str, argument: Optional[int], **options: object) -> Line:
    """Return a line that asks the null server for something."""
    server = NullServer()
    method = getattr(server, measure)
    run = method if argument is None else lambda: method(argument)
    return Line(name, unit, [Side("daemon", run, server.running)], about=about, **options)


LINES = [
    line("httpd-get-1", "requests/s", "GET of 4 KiB over HTTPS, null disk, one connection", "get", 1, target=8_000),
    line("httpd-get-4", "requests/s", "the same, four connections", "get", 4, target=15_000),
    line("httpd-options-1", "requests/s", "OPTIONS over HTTPS, one connection", "options", 1, target=8_000),
    line("httpd-options-4", "requests/s", "the same, four connections", "options", 4, target=15_000),
    line(
        *("httpd-idle-memory", "MiB", f"memory with {IDLE_CONNECTIONS} idle HTTPS connections", "idle_memory", None),
        **{"target": 120, "less_is_better": True, "rounds": 1},
    ),
    Line(
        *("daemon-start", "seconds", [Side("daemon", start_daemon)], 0.5, True),
        about="from the start of the daemon until it listens",
    ),
]
