"""Every URL is answered on the listeners that it belongs to, and on no other one."""

import contextlib
import http.client

import pytest
from fakes import toy

from ovirt_imageio.auth.store import Store
from ovirt_imageio.service import routes
from ovirt_imageio.service.metrics import Metrics
from ovirt_imageio.service.profiler import Profiler
from ovirt_imageio.sessions.sessions import Sessions


@pytest.fixture
def store():
    return Store(lambda ticket, line, traceparent: None)


def ask(application, method, path, headers=None):
    """Return the status of the answer, and its headers."""
    with (
        toy.serving(application) as server,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=toy.DEADLINE)) as connection,
    ):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers


@pytest.mark.parametrize(
    "path, status",
    [
        ("/info", 200),
        ("/info/", 200),
        ("/info/more", 404),
        ("/images/none", 403),
        ("/images/none/extents", 403),
        ("/images/none/checksum", 403),
        ("/images/none/checksum/algorithms", 200),
        ("/images/none/checksum/algorithms/", 200),
        ("//info", 200),
        ("///images/none/checksum/algorithms", 200),
        ("/images/a/b", 403),
        ("/images%2fnone", 403),
        ("/images/no%0Ane", 403),
        ("/images/", 400),
        ("/images", 404),
        ("/tickets/none", 404),
        ("/metrics", 404),
        ("/sessions", 404),
        ("/", 404),
    ],
)
def test_images(store, path, status):
    assert ask(routes.images(store, Metrics(), None), "GET", path)[0] == status


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/info", 200),
        ("GET", "/tickets", 200),
        ("GET", "/tickets/none", 404),
        ("DELETE", "/tickets/none", 204),
        ("DELETE", "/tickets/", 204),
        ("GET", "/metrics", 200),
        ("GET", "/profile", 404),
        ("GET", "/profile/", 404),
        ("GET", "/images/none", 404),
    ],
)
def test_control(store, tmp_path, method, path, status):
    def nothing(name):
        raise ImportError(name)

    profiler = Profiler(str(tmp_path / "profile"), nothing)
    assert ask(routes.control(store, Metrics(), profiler, 0), method, path)[0] == status


def test_the_page_is_there_when_it_is_enabled(store):
    assert ask(routes.images(store, Metrics(), None), "GET", "/view")[0] == 404
    page = b"<style></style><script></script>"
    assert ask(routes.images(store, Metrics(), None, page), "GET", "/view")[0] == 200
    sessions = Sessions(store, None, None)
    assert ask(routes.with_sessions(store, Metrics(), None, sessions, page), "GET", "/view")[0] == 200


def test_pages_may_use_images(store):
    _, headers = ask(routes.images(store, Metrics(), None), "GET", "/info", {"Origin": "https://engine"})
    assert headers["access-control-allow-origin"] == "*"


def test_no_page_may_use_tickets(store):
    application = routes.control(store, Metrics(), Profiler("/nowhere"), 0)
    status, headers = ask(application, "GET", "/tickets", {"Origin": "https://engine"})
    assert status == 403
    assert "access-control-allow-origin" not in headers
    # By a name that a page gave to this host.
    assert ask(application, "PUT", "/tickets/x", {"Host": "rebind.example.com:54324"})[0] == 403
    # A path that does not exist is nothing to learn, either.
    assert ask(application, "GET", "/nowhere", {"Origin": "https://engine"})[0] == 403


def test_sessions(store):
    """With sessions, an image that is not known asks for credentials."""
    application = routes.with_sessions(store, Metrics(), None, Sessions(store, None, None))
    assert ask(application, "GET", "/images/none")[0] == 401
    assert ask(application, "POST", "/sessions")[0] == 401
    assert ask(application, "DELETE", "/sessions/none")[0] == 404
    assert ask(application, "GET", "/info")[0] == 200


def test_numbers():
    """Nothing that has to do with tickets."""
    application = routes.numbers(Metrics(), lambda: False)
    for path in ("/metrics", "/health", "/info"):
        assert ask(application, "GET", path)[0] == 200
    for path in ("/tickets", "/tickets/x", "/images/x", "/profile", "/sessions"):
        assert ask(application, "GET", path)[0] == 404
        assert ask(application, "PUT", path)[0] == 404


def test_requests_are_counted(store):
    metrics = Metrics()
    ask(routes.images(store, metrics, None), "GET", "/info")
    assert 'imageio_requests_total{route="/info",method="GET",status="200"} 1' in metrics.registry.render()
