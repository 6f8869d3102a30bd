"""Through the proxy: one large download, one large upload, over TLS on both legs.

The host is always ours; beside our proxy another one can be measured: set IMAGEIO_RELEASE to its program.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from bench.lines import Line, Side
from real import certificates, daemon

__all__ = ["LINES"]

MIB = 1024**2
SIZE = 512 * MIB

# Nothing but the proxy shall cost: the image is in memory.
MEMORY = "/dev/shm"

HOST = "[local]\nenable = false\n"
PROXY = """\
[daemon]
systemd_enable = false
[local]
enable = false
[backend_http]
ca_file = {ca_file}
[remote]
port = {port}
"""

DEADLINE = 20


class Proxy:
    """A host with an image, and a proxy before it: ours, or that of a program."""

    def __init__(self, program: Optional[str] = None) -> None:
        self._program = program
        self.url = ""
        self._folder = Path()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            image = Path(stack.enter_context(tempfile.NamedTemporaryFile(dir=MEMORY)).name)
            image.write_bytes(os.urandom(MIB) * (SIZE // MIB))
            host = stack.enter_context(daemon.running(make(self._folder / "host"), HOST))
            url = host.add_ticket(url=f"file://{image}", size=SIZE, timeout=3600)
            text = PROXY.format(ca_file=certificates.authority().cert_file, port=free_port() if self._program else 0)
            folder = make(self._folder / "proxy")
            if self._program is None:
                proxy = stack.enter_context(daemon.running(folder, text))
                self.url = proxy.add_ticket(url=url, size=SIZE, timeout=3600)
            else:
                self.url = stack.enter_context(run_program(self._program, folder, text, url))
            yield

    def get(self) -> float:
        """Return the MiB per second of a download."""
        return self._curl("-o", "/dev/null")

    def put(self) -> float:
        """Return the MiB per second of an upload."""
        data = self._folder / "data"
        if not data.exists():
            with open(data, "wb") as f:
                f.truncate(SIZE)
        return self._curl("-T", str(data))

    def _curl(self, *options: str) -> float:
        started = time.monotonic()
        ca_file = certificates.authority().cert_file
        subprocess.run(["curl", "-sSf", "--cacert", ca_file, *options, self.url], check=True)
        return SIZE / MIB / (time.monotonic() - started)


@contextlib.contextmanager
def run_program(program: str, folder: Path, text: str, url: str) -> Iterator[str]:
    """Run a foreign daemon; yield the URL of the image there."""
    daemon.write_config(folder, text)
    port = int(text.rpartition("port = ")[2])
    with subprocess.Popen([program, "-c", str(folder / "etc")], stderr=subprocess.DEVNULL) as process:
        try:
            ticket_id = str(uuid.uuid4())
            ticket = {"uuid": ticket_id, "size": SIZE, "ops": ["write"], "timeout": 3600, "url": url}
            with contextlib.closing(connect(str(folder / "control.sock"))) as connection:
                connection.request("PUT", f"/tickets/{ticket_id}", json.dumps(ticket))
                assert connection.getresponse().status == 200
            yield f"https://localhost:{port}/images/{ticket_id}"
        finally:
            process.terminate()


def connect(path: str) -> http.client.HTTPConnection:
    """Return a connection to a Unix socket, as soon as somebody listens there."""
    deadline = time.monotonic() + DEADLINE
    connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
    while True:
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(path)
            return connection
        except OSError:
            connection.sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("localhost", 0)) as listener:
        return int(listener.getsockname()[1])


def make(folder: Path) -> Path:
    """Return the folder, made."""
    folder.mkdir(parents=True)
    return folder


def sides(method: str) -> list[Side]:
    """Return our side, and that of the other program if there is one."""
    proxies = [("ours", Proxy())]
    if os.environ.get("IMAGEIO_RELEASE"):
        proxies.append(("release", Proxy(os.environ["IMAGEIO_RELEASE"])))
    return [Side(name, getattr(proxy, method), proxy.running) for name, proxy in proxies]


LINES = [
    Line("proxy-get", "MiB/s", sides("get"), about="download through the proxy, TLS on both legs"),
    Line("proxy-put", "MiB/s", sides("put"), about="upload through the proxy, TLS on both legs"),
]
