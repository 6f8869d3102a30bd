"""Through the proxy: one large download, one large upload, over TLS on both legs.

The host is always ours; the proxy is ours, or the released one.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.arena import GIB, LIFE, MEMORY, MIB
from bench.lines import SERVER, Line, Side, Times
from bench.path_lines import transfer
from real import certificates, daemon, release

__all__ = ["LINES"]

SIZE = 512 * MIB

HOST = "[local]\nenable = false\n"
PROXY = """\
[local]
enable = false
[backend_http]
ca_file = {ca_file}
"""


class Proxy:
    """A host with an image in memory, and a proxy before it."""

    def __init__(self, kind: str, method: str) -> None:
        self._start = daemon.running if kind == "ours" else release.running
        self._method = method
        self._job: dict[str, Any] = {}
        self._pids: dict[str, int] = {}

    @contextlib.contextmanager
    def setup(self) -> Iterator[None]:
        """Run both, and warm them up."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            image = Path(stack.enter_context(tempfile.NamedTemporaryFile(dir=MEMORY)).name)
            image.write_bytes(os.urandom(MIB) * (SIZE // MIB))
            host = stack.enter_context(daemon.running(folder / "host", HOST))
            url = host.add_ticket(url=f"file://{image}", size=SIZE, **LIFE)
            text = PROXY.format(ca_file=certificates.authority().cert_file)
            proxy = stack.enter_context(self._start(folder / "proxy", text))
            ticket = proxy.add_ticket(url=url, size=SIZE, **LIFE).rpartition("/")[2]
            head = f"{self._method} /images/{ticket} HTTP/1.1\r\nHost: localhost\r\n"
            size = {"download": SIZE} if self._method == "GET" else {"upload": SIZE}
            head += "\r\n" if self._method == "GET" else f"Content-Length: {SIZE}\r\n\r\n"
            self._job = {"address": ["localhost", proxy.port], "ca_file": proxy.ca_file, "head": head, **size}
            self._pids = {SERVER: proxy.process.pid, "host": host.process.pid}
            yield

    def run(self) -> float:
        """Return MiB/s."""
        return SIZE / MIB / transfer([self._job])

    def processes(self) -> dict[str, int]:
        """Return both."""
        return self._pids


def line(method: str, about: str) -> Line:
    """Return a line of both proxies."""
    proxies = [(kind, Proxy(kind, method)) for kind in ("ours", "release")]
    sides = [Side(kind, proxy.run, proxy.setup, proxy.processes) for kind, proxy in proxies]
    name = f"proxy-{method.lower()}"
    return Line(name, "MiB/s", sides, about=about, targets=(Times(1.5),), warmups=1, gib=SIZE / GIB)


LINES = [
    line("GET", "download 512 MiB through the proxy, TLS on both legs"),
    line("PUT", "upload 512 MiB through the proxy, TLS on both legs"),
]
