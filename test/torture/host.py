"""A host for a proxy that is tortured: the images API over HTTPS, for one file, in a process of its own.

host.py FILE CERTIFICATE KEY: prints the port, and serves until its standard input ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TEST = Path(__file__).resolve().parents[1]

__all__ = ["TICKET", "running"]

TICKET = "host"


@contextlib.contextmanager
def running(path: str, cert_file: str, key_file: str) -> Iterator[int]:
    """Run a host; yield its port."""
    environ = {**os.environ, "PYTHONPATH": f"{TEST.parent}{os.pathsep}{TEST}"}
    command = [sys.executable, __file__, path, cert_file, key_file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdin and process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def main(path: str, cert_file: str, key_file: str) -> None:
    """Serve."""
    from ovirt_imageio.auth.store import Store
    from ovirt_imageio.backends.file import FileBackend
    from ovirt_imageio.httpd.listener import TcpAddress
    from ovirt_imageio.httpd.server import Server
    from ovirt_imageio.net.tls import ServerContext
    from ovirt_imageio.service import routes
    from ovirt_imageio.service.metrics import Metrics

    logging.disable()
    with Store(lambda ticket, line, traceparent: FileBackend(path, writable=True)) as store:
        ticket = {"uuid": TICKET, "ops": ["write"], "timeout": 3600, "url": f"file://{path}"}
        store.add({**ticket, "size": os.path.getsize(path)})
        application = routes.images(store, Metrics(), None)
        server = Server(TcpAddress("127.0.0.1", 0), application, tls=ServerContext(cert_file, key_file))
        server.start()
        try:
            print(server.port, flush=True)
            sys.stdin.read()
        finally:
            server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
