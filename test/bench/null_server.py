"""A program that serves one null disk over TLS, with tickets, handlers and all: null_server.py SIZE

Prints the URL when it is ready, and serves until its input ends.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from real import certificates  # noqa: E402  (the path comes first)

from ovirt_imageio.auth.store import Store  # noqa: E402
from ovirt_imageio.backends.null import NullBackend  # noqa: E402
from ovirt_imageio.httpd.listener import TcpAddress  # noqa: E402
from ovirt_imageio.httpd.server import Server  # noqa: E402
from ovirt_imageio.net import tls  # noqa: E402
from ovirt_imageio.service import routes  # noqa: E402
from ovirt_imageio.service.metrics import Metrics  # noqa: E402

TICKET = "null"

# One ticket for all clients, also for a thousand that are idle.
CONNECTIONS = 10_000


def main(size: int) -> None:
    """Serve a disk of so many bytes."""
    logging.basicConfig(level=logging.WARNING)
    made = certificates.certificate()
    metrics = Metrics()
    with Store(lambda ticket, line, traceparent: NullBackend(ticket.size), max_connections=CONNECTIONS) as store:
        store.add(
            {"uuid": TICKET, "size": size, "url": "null:", "timeout": 3600, "ops": ["read", "write"]},
        )
        server = Server(
            TcpAddress("127.0.0.1", 0),
            routes.images(store, metrics, None),
            tls=tls.ServerContext(made.cert_file, made.key_file),
            observer=metrics,
        )
        server.start()
        print(f"https://127.0.0.1:{server.port}/images/{TICKET}", flush=True)
        sys.stdin.read()
        server.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]))
