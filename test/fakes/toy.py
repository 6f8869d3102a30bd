"""A toy application to test the HTTP server with, and the server itself for the time of a test."""

from __future__ import annotations

import contextlib
import threading

from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.httpd import cors
from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.listener import TcpAddress
from ovirt_imageio.httpd.observer import Observer
from ovirt_imageio.httpd.refusal import Refusal
from ovirt_imageio.httpd.router import Application
from ovirt_imageio.httpd.server import Server

__all__ = ["Echo", "Gate", "Recorder", "Stream", "application", "serving"]


class Echo:
    """Tells what it got, and keeps what was put."""

    def __init__(self) -> None:
        self.data = b""

    def get(self, request, response, *groups):
        response.headers["x-groups"] = ",".join(groups)
        response.send_json({"path": request.path, "query": dict(request.query), "version": request.version})

    def put(self, request, response, *groups):
        self.data = request.body.read(1 << 20)
        response.send_json({"size": len(self.data)})

    def delete(self, request, response, *groups):
        response.send(204)

    def patch(self, request, response, *groups):
        """Never looks at its body."""
        response.send()

    def post(self, request, response, *groups):
        """Refuse before looking at the body."""
        raise Refusal(403, "No such ticket", close=True)


class Stream:
    """Sends `size` bytes through a sink; with `stop` only so many; `length` n: without telling how many."""

    def get(self, request, response):
        size = int(request.query["size"])
        sink = response.start(200, None if request.query.get("length") == "n" else size)
        view = memoryview(b"x" * min(size, 65536))
        left = int(request.query.get("stop", size))
        while left:
            sink.write(view[:left])
            left -= len(view[:left])
        if "stop" in request.query:
            raise errors.PartialContent(size, size - left)


class Gate:
    """Answers when it is opened; `entered` tells that a request is waiting."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.connection = None

    def get(self, request, response):
        self.connection = request.connection
        self.entered.set()
        assert self.opened.wait(DEADLINE)
        response.send_text("open")


class Broken:
    """Fails in every way."""

    def get(self, request, response, kind):
        response.headers["content-disposition"] = "attachment"
        if kind == "foreseen":
            raise errors.NotFound("thing")
        if kind == "header":
            response.headers["x-name"] = "a\r\nset-cookie: b"
            response.send()
        raise RuntimeError("secret")


class Recorder(Observer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.opened = []
        self.closed = []
        self.requests = []
        self.changed = threading.Condition()

    def connection_opened(self, connection):
        self._add(self.opened, connection.id)

    def connection_closed(self, connection):
        self._add(self.closed, connection.id)

    def request_finished(self, route, method, status, seconds):
        assert seconds >= 0
        self._add(self.requests, (route, method, status))

    def _add(self, events, event):
        with self.changed:
            events.append(event)
            self.changed.notify_all()

    def wait(self, is_true):
        with self.changed:
            assert self.changed.wait_for(is_true, DEADLINE)


def translate(error):
    return Refusal(404, str(error), {"x-reason": "foreseen"}) if isinstance(error, errors.Error) else None


def application(*routes, policy=None, observer=None):
    """Return an application with some resources, and more."""
    return Application(
        [
            *routes,
            (r"/echo/(.*)/(.*)", Echo()),
            (r"/echo/(.*)", Echo()),
            (r"/stream", Stream()),
            (r"/broken/(.*)", Broken()),
        ],
        translate=translate,
        cors=policy or cors.Policy(),
        observer=observer,
    )


@contextlib.contextmanager
def serving(app=None, address=None, grace=0, **options):
    """Serve an application, by default a toy on loopback, until the block ends."""
    limits = options.pop("limits", None) or Limits(linger_timeout=DEADLINE)
    server = Server(address or TcpAddress("127.0.0.1", 0), app or application(), limits=limits, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(grace)
