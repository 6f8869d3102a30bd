"""What a request shows: a signed ticket in a header or in the query, over the real server and store."""

from __future__ import annotations

import socket
import struct
import time

import pytest
from fakes import nbdclient
from fakes.guardedserver import GuardedServer
from fakes.signing import key_pair
from fakes.waiting import DEADLINE

from ovirt_imageio.auth.store import Store
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.handlers import signed
from ovirt_imageio.handlers.tickets import Tickets
from ovirt_imageio.net.jws import Key, PrivateKey
from ovirt_imageio.sessions.signed import SignedTickets, Verifier

IMAGE = "/images/backup-1"
BROWSER = {
    "Origin": "https://elsewhere",
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


def token(jti="backup-1", **fields):
    payload = {"jti": jti, "aud": "imageio", "exp": time.time() + 600, "url": "file:///x", "size": 10, "ops": ["read"]}
    return PrivateKey(key_pair()[0]).sign({**payload, **fields})


@pytest.fixture
def daemon(tmp_path):
    store = Store(lambda ticket, line, traceparent: MemoryBackend(bytearray(b"0123456789")))
    key = Key(key_pair()[1])
    tickets = SignedTickets(store, Verifier(lambda kid: key, "imageio", lambda url: True).verify)
    others = {"/tickets/(.*)": Tickets(store, 0, tickets)}
    with GuardedServer(str(tmp_path / "sock"), store, signed.door(tickets), others) as daemon:
        yield daemon


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_a_header(daemon, scheme):
    answer = daemon.ask("GET", IMAGE, {"Authorization": f"{scheme}{token()}"})
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_a_query(daemon):
    assert daemon.ask("GET", f"{IMAGE}?ticket={token()}").body == b"0123456789"
    assert daemon.ask("GET", f"{IMAGE}/extents?ticket={token()}").status == 200
    assert daemon.ask("OPTIONS", f"{IMAGE}?ticket={token()}").json()["size"] == 10


def test_without_it_there_is_no_such_ticket(daemon):
    """Also when it was just used by somebody else: the jti is no secret."""
    assert daemon.ask("GET", f"{IMAGE}?ticket={token()}").status == 200
    assert daemon.ask("GET", IMAGE).status == 403
    assert daemon.ask("GET", IMAGE, {"Authorization": "Basic eDp5"}).status == 403


@pytest.mark.parametrize("shown", ["", "x", "a.b.c"])
def test_what_is_no_token(daemon, shown):
    answer = daemon.ask("GET", f"{IMAGE}?ticket={shown}")
    assert answer.status == 401
    assert shown == "" or shown not in answer.body.decode().split()


@pytest.mark.parametrize("name, accepted", [("", True), ("backup-1", True), ("stored", False)])
def test_name_of_the_export(daemon, name, accepted):
    """A client that attaches the disk calls it what the URL does: the id in the store is none of its business."""
    request = f"GET {IMAGE}?ticket={token()} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: nbd\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(daemon.path)
        sock.sendall(request.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += nbdclient.receive(sock, 1)
        nbdclient.negotiate(sock)
        if name == "stored":
            (name,) = (info["uuid"] for info in daemon.store.find("signed/backup-1"))
        answers = nbdclient.option(sock, 6, struct.pack(">I", len(name)) + name.encode() + bytes(2))
    assert answers[-1] == (1 if accepted else 0x80000006)


def test_a_token_for_reading_does_not_write(daemon):
    assert daemon.ask("PUT", f"{IMAGE}?ticket={token()}", body=b"x").status == 403


def test_a_token_that_is_no_ticket(daemon):
    assert daemon.ask("GET", f"{IMAGE}?ticket={token(size=-1)}").status == 400


def test_ordinary_tickets_need_nothing(daemon):
    daemon.store.add({"uuid": "x", "url": "file:///x", "size": 10, "ops": ["read"], "timeout": 300})
    assert daemon.ask("GET", "/images/x").status == 200


def test_a_preflight_shows_nothing(daemon):
    answer = daemon.ask("OPTIONS", IMAGE, BROWSER)
    assert answer.status == 200
    assert "Authorization" in answer.headers["access-control-allow-headers"]


def test_revoked_by_the_control_service(daemon):
    shown = token()
    assert daemon.ask("GET", f"{IMAGE}?ticket={shown}").status == 200
    assert daemon.ask("GET", "/tickets/backup-1").json()["transfer_id"] == "signed/backup-1"
    assert daemon.ask("DELETE", "/tickets/backup-1").status == 204
    for again in (shown, token()):
        assert daemon.ask("GET", f"{IMAGE}?ticket={again}").status == 403


def test_revoked_before_it_came(daemon):
    assert daemon.ask("DELETE", "/tickets/backup-1").status == 204
    assert daemon.ask("GET", f"{IMAGE}?ticket={token()}").status == 403


def test_all_revoked(daemon):
    daemon.ask("GET", f"{IMAGE}?ticket={token()}")
    assert daemon.ask("DELETE", "/tickets/").status == 204
    assert daemon.ask("GET", f"{IMAGE}?ticket={token()}").status == 403


def test_tokens_are_secrets(daemon, caplog):
    caplog.set_level(0)
    shown = token()
    daemon.ask("GET", f"{IMAGE}?ticket={shown}")
    daemon.ask("GET", f"{IMAGE}?ticket={shown}x")
    daemon.ask("GET", f"/images/other?ticket={shown}")
    assert shown not in caplog.text
    assert "signed/backup-1" in caplog.text
