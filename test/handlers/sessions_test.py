"""/sessions and what it opens, over the real server and store; tokens are names."""

from __future__ import annotations

import time

import pytest
from fakes.guardedserver import GuardedServer

from ovirt_imageio import errors
from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.handlers.sessions import Closing, Opening, door
from ovirt_imageio.origin.image import Description
from ovirt_imageio.sessions.sessions import Sessions
from ovirt_imageio.sessions.token import Access

TICKET = "7c9f7ddb-2c39-4c1b-8a6e-6c3ad7c2a1f5"
OTHER = "0b6f2a0e-95a4-4a47-8a38-1f5a4a4f7a55"
IMAGE = f"/images/{TICKET}"
GOOD = {"Authorization": "good"}
BROWSER = {"Origin": "https://engine.example"}


def verify(token: str, now: float) -> Access:
    if token != "good":
        raise errors.NotAuthenticated("the token is not base64")
    return Access("https://host", TICKET, int(now) + 300, int(now) + 300)


class Proxy(GuardedServer):
    def __init__(self, path: str) -> None:
        self.disk = bytearray(b"0123456789")
        store = Store(lambda ticket, line, traceparent: MemoryBackend(self.disk))
        sessions = Sessions(store, verify, lambda url: Description(10, True, False, "disk.raw"), time.time)
        others = {"/sessions/?": Opening(sessions), "/sessions/(.+)": Closing(sessions)}
        super().__init__(path, store, door(sessions), others)


@pytest.fixture
def proxy(tmp_path):
    with Proxy(str(tmp_path / "sock")) as proxy:
        yield proxy


@pytest.mark.parametrize("path", ["/sessions", "/sessions/"])
def test_life_of_a_session(proxy, path):
    answer = proxy.ask("POST", path, GOOD)
    assert (answer.status, answer.body) == (200, b"")
    session = {"Session-Id": answer.headers["session-id"]}
    assert proxy.ask("GET", IMAGE, session).body == b"0123456789"
    assert proxy.ask("PUT", IMAGE, session, b"abc").status == 200
    assert proxy.ask("GET", f"{IMAGE}?session_id={session['Session-Id']}").body == b"abc3456789"
    assert proxy.ask("GET", f"{IMAGE}/extents", session).json()[0]["length"] == 10
    assert proxy.ask("POST", path, {**session, **GOOD}).headers["session-id"] == session["Session-Id"]
    assert proxy.ask("DELETE", f"/sessions/{session['Session-Id']}").status == 204
    assert proxy.ask("GET", IMAGE, session).status == 401
    assert proxy.ask("DELETE", f"/sessions/{session['Session-Id']}").status == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "bad"}, {"Session-Id": "unknown"}, {"Authorization": ""}])
def test_no_session_for_those_who_show_nothing_good(proxy, headers):
    answer = proxy.ask("POST", "/sessions", {**headers, **BROWSER})
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "session-id" not in answer.headers
    assert proxy.store.list() == []


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "HEAD", "PUT", "PATCH"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "bad"}, {"Session-Id": "unknown", **GOOD}])
def test_no_image_for_those_who_show_nothing_good(proxy, method, headers):
    answer = proxy.ask(method, IMAGE, headers, b"" if method in ("PUT", "PATCH") else None)
    assert answer.status == 401
    assert answer.closed
    assert proxy.disk == b"0123456789"


def test_no_other_image(proxy):
    session = {"Session-Id": proxy.ask("POST", "/sessions", GOOD).headers["session-id"]}
    for credentials in (session, GOOD):
        assert proxy.ask("GET", f"/images/{OTHER}", credentials).status == 403
        assert proxy.ask("GET", "/images/", credentials).status == 400


def test_token_on_images(proxy):
    assert proxy.ask("GET", IMAGE, {**GOOD, "Range": "bytes=2-3"}).body == b"23"
    assert proxy.ask("PUT", IMAGE, {**GOOD, "Content-Range": "bytes 8-9/10"}, b"xy").status == 200
    assert proxy.disk == b"01234567xy"
    assert len(proxy.store.list()) == 1


def test_junk_does_no_harm_to_a_control_ticket(proxy):
    proxy.store.add({"uuid": OTHER, "size": 10, "ops": ["read"], "timeout": 300, "url": "file:///disk"})
    for headers in ({}, {"Authorization": "junk"}, {"Session-Id": "junk"}):
        assert proxy.ask("GET", f"/images/{OTHER}", headers).status == 200


def test_download_is_named(proxy):
    assert proxy.ask("GET", IMAGE, GOOD).headers["content-disposition"] == "attachment; filename=disk.raw"


def test_bad_paths(proxy):
    assert proxy.ask("POST", "/sessions/x", GOOD).status == 405
    assert proxy.ask("DELETE", "/sessions").status == 405
    assert proxy.ask("DELETE", "/sessions/").status == 405


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_bad_method(proxy, method):
    assert proxy.ask(method, "/sessions").status == 405


def test_server_wide_options_need_nothing(proxy):
    assert proxy.ask("OPTIONS", "/images/*").status == 200


@pytest.mark.parametrize(
    "path,method", [("/sessions", "POST"), ("/sessions/x", "DELETE"), (IMAGE, "PUT"), (IMAGE, "GET")]
)
def test_preflight(proxy, path, method):
    names = "authorization,session-id,content-range,cache-control,pragma,content-type"
    headers = {**BROWSER, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": names}
    answer = proxy.ask("OPTIONS", path, headers)
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"].split(",")
    allowed = answer.headers["access-control-allow-headers"].lower().split(",")
    assert set(names.split(",")) <= set(allowed)


def test_a_page_can_read_the_session_id(proxy):
    answer = proxy.ask("POST", "/sessions", {**GOOD, **BROWSER})
    assert "Session-Id" in answer.headers["access-control-expose-headers"].split(", ")


def test_secrets_stay_out_of_errors_and_logs(proxy, caplog):
    caplog.set_level("DEBUG")
    session_id = proxy.ask("POST", "/sessions", GOOD).headers["session-id"]
    proxy.ask("GET", IMAGE, {"Session-Id": session_id})
    answers = [
        proxy.ask("GET", f"/images/{OTHER}", {"Session-Id": session_id}),
        proxy.ask("POST", "/sessions", {"Authorization": "bad-token"}),
        proxy.ask("DELETE", f"/sessions/{session_id}"),
        proxy.ask("DELETE", f"/sessions/{session_id}"),
    ]
    shown = caplog.text + "".join(answer.body.decode() for answer in answers)
    for secret in (session_id, TICKET, OTHER, "bad-token"):
        assert secret not in shown
