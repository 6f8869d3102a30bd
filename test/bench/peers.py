"""The other programs that we are compared with: nbdcopy, dd and nginx.

Each either runs, or is Missing with a reason. nginx is taken out of its package into .cache, without installing that:
nothing on the system changes, no service is registered.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from real import certificates, daemon
from real.release import Missing

__all__ = ["DEADLINE", "Nginx", "dd", "need", "nginx_program", "timed"]

HOME = daemon.ROOT / ".cache" / "peer"
DEADLINE = 20.0
PATHS = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

# One process, which keeps its user; whatever it writes goes below the prefix.
NGINX = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path temp;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    uwsgi_temp_path temp;
    scgi_temp_path temp;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {tls.cert_file};
        ssl_certificate_key {tls.key_file};
        ssl_protocols TLSv1.2 TLSv1.3;
        root {root};
    }}
}}
"""

# How to get a package as a file and to take it apart, by package manager.
UNPACK = {
    "apt-get": "apt-get download nginx && dpkg-deb -x nginx_*.deb .",
    "dnf": "dnf download nginx-core && rpm2cpio nginx-core-*.rpm | cpio -idm",
}


def need(program: str) -> str:
    """Return the path of a program. Raises Missing."""
    path = shutil.which(program, path=PATHS)
    if path is None:
        raise Missing(f"{program} is not installed")
    return path


def timed(*command: object) -> float:
    """Run a program to its end; return the seconds."""
    started = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def dd(size: int, *operands: str) -> float:
    """Copy with dd; return the seconds."""
    return timed("dd", "bs=1M", f"count={size >> 20}", "status=none", *operands)


@functools.cache
def nginx_program() -> str:
    """Return the path of nginx; it is fetched when it is not there. Raises Missing."""
    with contextlib.suppress(Missing):
        return need("nginx")
    folder = HOME / "nginx"
    program = folder / "usr" / "sbin" / "nginx"
    if not program.exists():
        manager = next((name for name in UNPACK if shutil.which(name)), None)
        if manager is None:
            raise Missing("nginx is not installed, and there is no package manager that we know")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(UNPACK[manager], shell=True, cwd=folder, capture_output=True, text=True)
        if done.returncode or not program.exists():
            raise Missing(f"nginx cannot be fetched: {done.stderr[-500:].strip()}")
    done = subprocess.run([str(program), "-v"], capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"nginx does not run: {done.stderr[-500:].strip()}")
    return str(program)


class Nginx:
    """An nginx that serves the files of a folder over HTTPS."""

    def __init__(self) -> None:
        self.port = 0
        self.pid = 0
        self.ca_file = ""

    @contextlib.contextmanager
    def running(self, root: Path) -> Iterator[None]:
        """Run it on loopback. Raises Missing."""
        program = nginx_program()
        tls = certificates.certificate()
        self.ca_file = tls.ca_file
        self.port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "nginx.conf"
            config.write_text(NGINX.format(port=self.port, tls=tls, root=root))
            command = [program, "-p", folder, "-c", str(config), "-e", "stderr"]
            with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
                try:
                    wait_port(self.port, process)
                    self.pid = process.pid
                    yield
                finally:
                    process.terminate()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server listens. Raises Missing when the process ended instead."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError as e:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"it does not listen on port {port}") from e
            time.sleep(0.01)
