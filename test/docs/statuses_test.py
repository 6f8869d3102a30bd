"""Each status of each request in docs/openapi.yaml is provoked, and no request is answered with another one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest
from fakes import toy
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.origin.image import Description
from ovirt_imageio.service import routes
from ovirt_imageio.service.metrics import Metrics
from ovirt_imageio.sessions.sessions import Sessions
from ovirt_imageio.sessions.token import Access

yaml = pytest.importorskip("yaml")

from docs.openapi_test import DOCUMENT, METHODS  # noqa: E402

SIZE = 1024
LARGE = b" " * (2 * 1024**2)

# What goes wrong between us and the disk, as a token says it: the host is asked when it is shown.
FAILURES = {
    "storage": errors.StorageError("open", "it is broken"),
    "untrusted": errors.BackendUntrusted("open", "it is another one"),
    "away": errors.BackendUnavailable("open", "it is away"),
    "slow": errors.BackendTimeout("open", "it is slow"),
    "refuses": errors.OriginError("open", "No such ticket", status=403),
}


class FullDisk(MemoryBackend):
    """A disk without space."""

    def write(self, offset, view):
        raise errors.NoSpace("write", "it is full")

    def zero(self, offset, length):
        raise errors.NoSpace("zero", "it is full")


class HangingDisk(MemoryBackend):
    """A disk that hangs until it is let go."""

    is_free = threading.Event()

    def readinto(self, offset, view):
        assert self.is_free.wait(DEADLINE)
        return super().readinto(offset, view)


class FakeProfiler:
    """Fails when it is told to stop, as `error` says."""

    error: BaseException

    def is_running(self):
        if isinstance(self.error, errors.NotFound):
            raise self.error
        return True

    def start(self, clock):
        pass

    def stop(self):
        raise self.error


KINDS = {"full": FullDisk, "hangs": HangingDisk}

profiler = FakeProfiler()


def open_backend(ticket, line, traceparent):
    return KINDS.get(ticket.uuid, MemoryBackend)(bytearray(SIZE))


def verify(token, now):
    """A token is what goes wrong, and the ticket for which it is good."""
    kind, _, ticket_id = token.partition(":")
    if kind not in (*FAILURES, "good"):
        raise errors.NotAuthenticated("the token is not base64")
    return Access(f"https://{kind}", ticket_id, int(now) + 300, int(now) + 300)


def look(url):
    kind = url.partition("//")[2].partition("/")[0]
    if kind in FAILURES:
        raise FAILURES[kind]
    return Description(SIZE, True, False)


class Servers:
    """The listeners, and what each request was answered with."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.store = Store(open_backend, default_inactivity_timeout=0.1)
        metrics = Metrics()
        sessions = Sessions(self.store, verify, look, time.time)
        self.is_stopping = False
        applications = {
            "remote": routes.with_sessions(self.store, metrics, None, sessions, b"<script></script><style></style>"),
            "control": routes.control(self.store, metrics, profiler, remove_timeout=0.1),
            "metrics": routes.numbers(metrics, lambda: self.is_stopping),
            # Without what can be enabled.
            "bare": routes.images(self.store, metrics),
        }
        limits = Limits(io_timeout=0.1, linger_timeout=DEADLINE)
        full = Limits(connections=0, linger_timeout=DEADLINE)
        self.ports = {
            name: stack.enter_context(toy.serving(app, limits=limits)).port for name, app in applications.items()
        }
        self.full = {
            name: stack.enter_context(toy.serving(app, limits=full)).port for name, app in applications.items()
        }
        # By method and path of the document.
        self.seen: dict[tuple[str, str], set[int]] = defaultdict(set)

    def add(self, uuid, ops=("read", "write")):
        ticket = {"uuid": uuid, "size": SIZE, "url": "file:///disk", "ops": list(ops), "timeout": 300}
        self.store.add({**ticket, "transfer_id": uuid})

    def ask(self, method, path, *fields, body=b"", port=None, **place):
        """Send a request; `place` fills the path, and its query."""
        query = place.pop("query", "")
        target = path.format(**{"id": "disk", **place}) + query
        lines = [f"{method} {target} HTTP/1.1", "host: localhost", "connection: close", *fields]
        if not any(line.startswith(("content-length", "transfer-encoding")) for line in lines):
            lines.append(f"content-length: {len(body)}")
        self.send(method, path, "\r\n".join([*lines, "", ""]).encode() + body, port)

    def send(self, method, path, data, port=None):
        """Send bytes as the request for a path, and note the status."""
        with socket.create_connection(("127.0.0.1", port or self.ports[listener(path)]), timeout=DEADLINE) as sock:
            # The server may refuse before it has everything.
            with contextlib.suppress(OSError):
                sock.sendall(data)
            answer = sock.recv(100)
        self.seen[method, path].add(int(answer.split()[1]))


def listener(path):
    services = DOCUMENT["paths"][path]["x-services"]
    return services[0] if services[0] in ("remote", "control", "metrics") else "remote"


def every() -> Iterator[tuple[str, str]]:
    """Yield the methods and paths of the document."""
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS & item.keys():
            yield method.upper(), path


@pytest.fixture
def servers():
    profiler.error = errors.InvalidValue("run", "n", "y: it does not run")
    HangingDisk.is_free.clear()
    with contextlib.ExitStack() as stack:
        servers = Servers(stack)
        servers.add("disk")
        yield servers


GOOD_BODIES = {
    ("PATCH", "/images/{id}"): b'{"op": "zero", "size": 1}',
    ("PUT", "/images/{id}"): b"x",
    ("PATCH", "/tickets/{id}"): b'{"timeout": 300}',
    ("PUT", "/tickets/{id}"): b'{"uuid": "new", "size": 1, "url": "file:///x", "ops": ["read"], "timeout": 1}',
}

# Requests for images that need a ticket, or a session; a browser's question does not.
IMAGES = [
    (method, path)
    for method, path in every()
    if path.startswith("/images/") and (method != "OPTIONS" or path == "/images/{id}")
]


def provoke_malformed(servers):
    """What is no HTTP, or too much at once, is refused whatever it is about."""
    for method, path in every():
        target = path.format(id="disk").encode()
        start = method.encode() + b" " + target
        servers.send(method, path, start + b" HTTP/1.1\r\ncontent-length: x\r\n\r\n")
        servers.send(method, path, start + b"?" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n")
        servers.send(method, path, start + b" HTTP/1.1\r\nx: " + b"x" * 70000 + b"\r\n\r\n")
        servers.send(method, path, start + b" HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n")
        servers.send(method, path, start + b" HTTP/2.0\r\n\r\n")
        servers.send(method, path, start + b" HTTP/1.1\r\n\r\n", servers.full[listener(path)])


def provoke_images(servers):
    for method, path in IMAGES:
        body = GOOD_BODIES.get((method, path), b"")
        servers.ask(method, path, body=body)
        servers.ask(method, path, body=body, id="unknown")
        servers.ask(method, path, "authorization: good:other", body=body, id="unknown")
        for kind in FAILURES:
            servers.ask(method, path, f"authorization: {kind}:unknown", body=body, id="unknown")
    image = "/images/{id}"
    servers.ask("GET", image, "range: bytes=0-0")
    servers.ask("GET", image, f"range: bytes={SIZE}-")
    with contextlib.suppress(OSError):
        servers.send("GET", image, b"GET /images/disk HTTP/1.1\r\nconnection: upgrade\r\nupgrade: nbd\r\n\r\n")
    servers.ask("PUT", image, f"content-range: bytes {SIZE}-*/*", body=b"x")
    servers.ask("PATCH", image, body=b'{"op": "zero", "size": %d}' % (SIZE + 1))
    servers.add("full")
    for method in ("PUT", "PATCH"):
        servers.ask(method, image, body=GOOD_BODIES[method, image], id="full")
        servers.ask(method, image, "content-length: 10", body=b"x")
    servers.ask("PATCH", image, body=LARGE)
    for method in ("GET", "HEAD"):
        servers.ask(method, "/images/{id}/extents", query="?context=dirty")
        servers.ask(method, "/images/{id}/extents", query=f"?offset={SIZE + 1}")
        servers.ask(method, "/images/{id}/checksum", query=f"?length={SIZE + 1}")


def provoke_sessions(servers):
    for kind in ("good", "bad", *FAILURES):
        servers.ask("POST", "/sessions", f"authorization: {kind}:unknown")
    servers.ask("DELETE", "/sessions/{id}", id="unknown")
    with socket.create_connection(("127.0.0.1", servers.ports["remote"]), timeout=DEADLINE) as sock:
        sock.sendall(b"POST /sessions HTTP/1.1\r\nauthorization: good:unknown\r\n\r\n")
        answer = sock.recv(4096).decode()
    (session,) = [line.split()[1] for line in answer.splitlines() if line.startswith("session-id")]
    servers.ask("DELETE", "/sessions/{id}", id=session)


def provoke_options(servers):
    for method, path in every():
        if method == "OPTIONS":
            servers.ask(method, path)
    servers.ask("OPTIONS", "/info", port=servers.ports["control"])
    servers.ask("OPTIONS", "/info", port=servers.ports["metrics"])


def provoke_control(servers):
    for method, path in every():
        if path == "/info" or "control" in DOCUMENT["paths"][path]["x-services"]:
            servers.ask(method, path, "origin: https://page.example", port=servers.ports["control"])
    servers.add("new")
    servers.ask("GET", "/tickets")
    servers.ask("HEAD", "/tickets")
    ticket = "/tickets/{id}"
    for method in ("GET", "HEAD", "PATCH", "PUT"):
        body = GOOD_BODIES.get((method, ticket), b"")
        servers.ask(method, ticket, id="new", body=body)
        servers.ask(method, ticket, id="unknown", body=body)
    for method in ("PATCH", "PUT"):
        servers.ask(method, ticket, id="new", body=LARGE)
        servers.ask(method, ticket, "content-length: 10", id="new", body=b"{")
    servers.add("hangs")
    with socket.create_connection(("127.0.0.1", servers.ports["remote"]), timeout=DEADLINE) as sock:
        sock.sendall(b"GET /images/hangs HTTP/1.1\r\n\r\n")
        wait_until(lambda: servers.store.info("hangs")["active"])
        servers.ask("DELETE", ticket, id="hangs")
        servers.ask("DELETE", "/tickets/")
        HangingDisk.is_free.set()
        while sock.recv(4096):
            pass
    servers.ask("DELETE", ticket, id="hangs")
    servers.ask("DELETE", "/tickets/")


def provoke_service(servers):
    for method in ("GET", "HEAD"):
        for path in ("/profile", "/metrics", "/health", "/info", "/view"):
            servers.ask(method, path)
        servers.ask(method, "/view", port=servers.ports["bare"])
    servers.is_stopping = True
    servers.ask("GET", "/health")
    servers.ask("POST", "/profile", query="?run=y")
    for error in (
        errors.StorageError("write", "broken"),
        errors.NoSpace("write", "full"),
        errors.NotFound("profiler"),
    ):
        profiler.error = error
        for method in ("GET", "HEAD", "POST"):
            servers.ask(method, "/profile", query="?run=n" if method == "POST" else "")


def test_each_status_is_provoked_and_no_other_one(servers):
    provoke_malformed(servers)
    provoke_images(servers)
    provoke_sessions(servers)
    provoke_options(servers)
    provoke_service(servers)
    provoke_control(servers)
    told = {
        (method, path): set(map(int, DOCUMENT["paths"][path][method.lower()]["responses"])) for method, path in every()
    }
    assert {key: sorted(statuses) for key, statuses in servers.seen.items()} == {
        key: sorted(statuses) for key, statuses in told.items()
    }
