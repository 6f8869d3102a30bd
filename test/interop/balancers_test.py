"""HAProxy and nginx in front of a daemon, configured as docs/load-balancers.md has it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from fakes import nbdclient, ports
from fakes.waiting import DEADLINE, wait_until
from real import certificates, daemon
from real.daemon import Daemon

from docs import pages
from ovirt_imageio.config.sections import BackendNbd
from ovirt_imageio.units import MiB

pytestmark = [
    pytest.mark.slow,
    pytest.mark.storage,
    pytest.mark.skipif(not all(map(shutil.which, ("haproxy", "nginx"))), reason="needs haproxy and nginx"),
]

PAGE = "docs/load-balancers.md"

SIZE = 24 * MiB

# What is the same in so many looks stands still.
LOOKS = 50

# What an nginx that is not installed as a service needs around the example.
NGINX = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/images.conf;
}}
"""


def examples() -> dict[str, str]:
    """Return the examples of the page."""
    blocks = [block for block in pages.blocks(PAGE, pages.read(PAGE)) if block.language in ("haproxy", "nginx")]
    return dict(zip(("haproxy-tcp", "haproxy-http", "nginx"), (block.text for block in blocks)))


@dataclass
class Front:
    """A balancer that runs: where it listens, and its daemon."""

    port: int
    daemon: Daemon

    def connect(self) -> ssl.SSLSocket:
        """Connect like a client."""
        sock = socket.create_connection(("localhost", self.port), timeout=DEADLINE)
        return self.daemon.tls.wrap_socket(sock, server_hostname="localhost")

    def ask(self, head: str, body: bytes = b"") -> tuple[str, bytes]:
        """Send a request; return the status line and the body of the answer."""
        with self.connect() as sock:
            sock.sendall(head.encode() + body)
            answer = bytearray()
            while part := sock.recv(MiB):
                answer += part
        start, _, rest = bytes(answer).partition(b"\r\n\r\n")
        return start.split(b"\r\n")[0].decode(), rest


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    # So that no client takes the Unix socket instead of the balancer.
    text = "[local]\nenable = false\n[metrics]\nenable = true\nhost = localhost\nport = 0\n"
    with daemon.running(tmp_path_factory.mktemp("host"), text) as running:
        yield running


@pytest.fixture(scope="module", params=examples())
def front(request, host, tmp_path_factory):
    with run(request.param, host, tmp_path_factory.mktemp("front")) as front:
        yield front


@contextlib.contextmanager
def run(name: str, host: Daemon, folder: Path, changes: Mapping[str, str] = {}) -> Iterator[Front]:
    """Run the program of an example, with changes to its text."""
    tls = certificates.certificate()
    (folder / "images.pem").write_text(Path(tls.cert_file).read_text() + Path(tls.key_file).read_text())
    with ports.reserved() as port:
        text = examples()[name]
        for told, real in {
            **changes,
            "bind :443": f"bind 127.0.0.1:{port}",
            "listen 443": f"listen 127.0.0.1:{port}",
            "images.example.com": "localhost",
            "host1:54322": f"localhost:{host.port}",
            "check port 54325": f"check port {host.addresses['metrics'].rpartition(':')[2]}",
            "verifyhost host1": "verifyhost localhost",
            "proxy_ssl_name host1": "proxy_ssl_name localhost",
            "/etc/haproxy/images.pem": str(folder / "images.pem"),
            "/etc/nginx/images.pem": tls.cert_file,
            "/etc/nginx/images.key": tls.key_file,
            "/etc/haproxy/ca.pem": tls.ca_file,
            "/etc/nginx/ca.pem": tls.ca_file,
        }.items():
            text = text.replace(told, real)
        command = write(name, text, folder)
        with open(folder / "log", "w") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                front = Front(port, host)
                wait_until(lambda: is_up(front, process), lambda: (folder / "log").read_text())
                yield front
            finally:
                process.terminate()


def write(name: str, text: str, folder: Path) -> list[str]:
    """Write a configuration; return the command that uses it."""
    if name == "nginx":
        (folder / "images.conf").write_text(text)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
        return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def is_up(front: Front, process: subprocess.Popen[bytes]) -> bool:
    """Return True if requests reach the daemon."""
    assert process.poll() is None
    with contextlib.suppress(OSError):
        return front.ask("GET /info HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")[0].endswith("200 OK")
    return False


@pytest.fixture
def disk(host, tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def ticket(host, disk):
    return host.add_ticket(url=f"file://{disk}", size=SIZE).rpartition("/")[2]


def head(method: str, ticket: str, *fields: str) -> str:
    return "\r\n".join([f"{method} /images/{ticket} HTTP/1.1", "host: localhost", *fields, "", ""])


def test_download(front, disk, ticket):
    status, body = front.ask(head("GET", ticket, "connection: close"))
    assert status == "HTTP/1.1 200 OK"
    assert hashlib.sha256(body).digest() == hashlib.sha256(disk.read_bytes()).digest()


def test_range(front, disk, ticket):
    status, body = front.ask(head("GET", ticket, "connection: close", "range: bytes=-1000"))
    assert (status, body) == ("HTTP/1.1 206 Partial Content", disk.read_bytes()[-1000:])


def test_upload_is_not_kept(front, host, disk, ticket):
    """The first half is on the disk before the second one is sent."""
    data = os.urandom(SIZE)
    with front.connect() as sock:
        sock.sendall(head("PUT", ticket, f"content-length: {SIZE}", "connection: close").encode())
        sock.sendall(data[: SIZE // 2])

        def has_begun() -> bool:
            with open(disk, "rb") as file:
                return file.read(SIZE // 4) == data[: SIZE // 4]

        wait_until(has_begun)
        sock.sendall(data[SIZE // 2 :])
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert disk.read_bytes() == data


def test_download_is_not_kept(front, host, disk):
    """A client that reads nothing stops the daemon, too: no memory or disk between them fills up."""
    size = 10**12
    with open(disk, "wb") as file:
        file.truncate(size)
    url = host.add_ticket(url=f"file://{disk}", size=size, ops=["read"])
    ticket = url.rpartition("/")[2]

    def transferred() -> int:
        return json.loads(host.control("GET", f"/tickets/{ticket}")[1])["transferred"]

    with front.connect() as sock:
        sock.sendall(head("GET", ticket).encode())
        seen = [0]

        def stands_still() -> bool:
            seen.append(transferred())
            return 0 < seen[-1] == seen[-LOOKS:][0]

        wait_until(stands_still)
        assert seen[-1] < 100 * MiB


def test_refusal_can_be_read(front):
    """Before the client has sent everything."""
    with front.connect() as sock:
        sock.sendall(head("PUT", "nothing", f"content-length: {SIZE}").encode() + bytes(MiB))
        answer = b""
        while b"No such ticket" not in answer:
            part = sock.recv(MiB)
            assert part, answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 403 Forbidden")


def test_nbd_passes(front, disk, ticket):
    with front.connect() as sock:
        sock.sendall(head("GET", ticket, "connection: upgrade", "upgrade: nbd").encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += sock.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols")
        nbdclient.handshake(sock)
        sock.sendall(nbdclient.request(0, 7, 4096, 512))
        flags, kind, cookie, payload = nbdclient.chunk(sock)
        assert (flags, kind, cookie, payload[8:]) == (1, 1, 7, disk.read_bytes()[4096 : 4096 + 512])


def test_chunked_upload(front, disk, ticket):
    """Of a client that does not know the length."""
    chunk = b"%x\r\n%s\r\n" % (MiB, b"x" * MiB)
    fields = ["transfer-encoding: chunked", "connection: close"]
    assert front.ask(head("PUT", ticket, *fields), 2 * chunk + b"0\r\n\r\n")[0] == "HTTP/1.1 200 OK"
    assert disk.read_bytes()[: 2 * MiB] == b"x" * 2 * MiB


@pytest.mark.skipif(not shutil.which("nbdkit"), reason="needs nbdkit")
@pytest.mark.parametrize("changes, status", [({"timeout server 10m": "timeout server 1s"}, 504), ({}, 200)])
def test_the_trap(host, tmp_path, changes, status):
    """Storage that takes two seconds for a write: a balancer that gives up after one fails what is well."""
    sock = tmp_path / "sock"
    command = ["nbdkit", "--foreground", f"--unix={sock}", "--filter=delay", "memory", "size=1M", "wdelay=2"]
    with run("haproxy-http", host, tmp_path, changes) as front, subprocess.Popen(command) as process:
        try:
            wait_until(sock.exists)
            ticket = host.add_ticket(url=f"nbd:unix:{sock}", size=MiB).rpartition("/")[2]
            line, _ = front.ask(head("PUT", ticket, "content-length: 512", "connection: close"), bytes(512))
            assert line.split()[1] == str(status)
        finally:
            process.terminate()


UNITS = {"s": 1, "m": 60, "h": 3600}

# What begins before there is a transfer.
SHORT = ("timeout connect", "timeout http-request")


@pytest.mark.parametrize("name", examples())
def test_nothing_falls_into_the_trap(name):
    """Each time-out is longer than the daemon itself waits for storage."""
    lines = [line.strip(" ;") for line in examples()[name].splitlines()]
    found = re.findall(r"^(\S*timeout(?: [a-z-]+)?) (\d+)([smh])$", "\n".join(lines), re.MULTILINE)
    assert len(found) > 2
    for key, number, unit in found:
        if key not in SHORT:
            assert int(number) * UNITS[unit] > BackendNbd().reply_timeout, key
