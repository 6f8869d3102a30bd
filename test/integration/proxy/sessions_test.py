"""Sessions of the proxy, with tokens that an engine signed."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import threading
import time
import uuid

import pytest

pytest.importorskip("cryptography")

from fakes.origin import TICKET_ID, DiskOrigin
from fakes.waiting import DEADLINE, wait_until
from real import certificates, tokens
from real.proxy import ENGINE, MIB, OTHER, SIZE, Client, Image, ask, open_session, run_host, run_proxy
from sessions import token_test


def count_tickets(proxy):
    return len(json.loads(proxy.control("GET", "/tickets")[1]))


def test_session(proxy, image):
    session = open_session(proxy, image.token())
    path = f"/images/{image.id}"
    assert ask(proxy, "GET", path, session).body == image.content
    assert ask(proxy, "PUT", path, session, b"x" * SIZE).status == 200
    assert image.content == b"x" * SIZE
    assert ask(proxy, "PATCH", path, session, b'{"op": "zero", "size": 10}').status == 200
    assert image.content == bytes(10) + b"x" * (SIZE - 10)
    info = ask(proxy, "OPTIONS", path, session).json()
    assert info["size"] == SIZE
    session_id = session["Session-Id"]
    assert ask(proxy, "GET", f"{path}?session_id={session_id}", {"Range": "bytes=0-9"}).body == bytes(10)
    assert ask(proxy, "DELETE", f"/sessions/{session_id}").status == 204
    assert ask(proxy, "GET", path, session).status == 401
    assert ask(proxy, "DELETE", f"/sessions/{session_id}").status == 404


def test_host_sees_nothing_of_the_session(proxy):
    """What the proxy asks for is what any client would: the ticket in the path, and no credentials."""
    certificate = certificates.certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    with DiskOrigin(bytes(100), context=context) as origin:
        where = {"imaged-uri": f"https://localhost:{origin.port}", "transfer-ticket": TICKET_ID}
        token = tokens.make_token(ENGINE, **where)
        session = open_session(proxy, token)
        path = f"/images/{TICKET_ID}"
        assert ask(proxy, "GET", f"{path}?session_id={session['Session-Id']}", {"Range": "bytes=10-19"}).status == 206
        assert ask(proxy, "PUT", path, {**session, "Content-Range": "bytes 10-19/*"}, b"0123456789").status == 200
        assert origin.data[10:20] == b"0123456789"
        assert ask(proxy, "DELETE", f"/sessions/{session['Session-Id']}").status == 204
        assert {method for method, _, _ in origin.requests} >= {"OPTIONS", "GET", "PUT"}
        for _, target, headers in origin.requests:
            assert target.startswith(path)
            assert session["Session-Id"] not in target
            assert not {"authorization", "session-id"} & {name.lower() for name in headers}


def test_token_with_every_request(proxy, image):
    headers = {"Authorization": image.token()}
    path = f"/images/{image.id}"
    assert ask(proxy, "PUT", path, {**headers, "Content-Range": "bytes 5-9/*"}, b"xxxxx").status == 200
    assert ask(proxy, "GET", path, headers).body == image.content
    assert image.content[5:10] == b"xxxxx"


def test_read_only_ticket(proxy, host, tmp_path):
    image = Image(host, tmp_path, ops=["read"], filename="disk ü.iso")
    session = open_session(proxy, image.token())
    path = f"/images/{image.id}"
    answer = ask(proxy, "GET", path, session)
    assert answer.body == image.content
    assert "disk" in answer.headers["content-disposition"]
    before = image.content
    assert ask(proxy, "PUT", path, session, b"x").status == 403
    assert image.content == before


def test_nothing_without_a_session(proxy, image):
    path = f"/images/{image.id}"
    before = count_tickets(proxy)
    for headers in (
        {},
        {"Session-Id": str(uuid.uuid4())},
        {"Authorization": image.token(OTHER)},
        {"Authorization": "x"},
    ):
        assert ask(proxy, "GET", path, headers).status == 401
    session = open_session(proxy, image.token())
    assert ask(proxy, "GET", f"/images/{uuid.uuid4()}", session).status == 403
    assert ask(proxy, "GET", "/images/", session).status == 400
    assert ask(proxy, "DELETE", f"/sessions/{session['Session-Id']}").status == 204
    assert count_tickets(proxy) == before


def test_every_bad_token(tmp_path):
    """None opens a session, none is an internal error, and no host is asked about any of them."""
    with run_proxy(tmp_path / "proxy", engine=token_test.ENGINE, authority=token_test.AUTHORITY) as proxy:
        with contextlib.closing(Client(proxy)) as client:
            for name, (text, _) in token_test.BAD.items():
                if not text.isascii() or "\n" in text or len(text) > 60_000:
                    continue  # These are no headers.
                client.close()  # A refusal ends the connection.
                assert client.ask("POST", "/sessions", {"Authorization": text}).status == 401, name
        assert count_tickets(proxy) == 0
        assert "OPEN session" not in proxy.log()


def test_token_of_a_mebibyte(proxy):
    """It is refused before it is read to the end."""
    # The proxy does not wait for all of it.
    with contextlib.closing(Client(proxy)) as client, contextlib.suppress(OSError):
        assert client.ask("POST", "/sessions", {"Authorization": "A" * MIB}).status == 431


def test_token_names_the_host(proxy, host, image, tmp_path):
    with run_host(tmp_path / "host2") as second:
        data = os.urandom(1000)
        path = tmp_path / "other"
        path.write_bytes(data)
        second.add_ticket(image.id, url=f"file://{path}", size=1000)
        token = image.token(**{"imaged-uri": f"https://localhost:{second.port}"})
        assert ask(proxy, "GET", f"/images/{image.id}", open_session(proxy, token)).body == data
        assert ask(proxy, "GET", f"/images/{image.id}", open_session(proxy, image.token())).body == image.content


@pytest.mark.slow
def test_session_ends_with_its_token_and_can_be_renewed(proxy, image):
    end = int(time.time()) + 5
    session = open_session(proxy, image.token(exp=end))
    renewed = open_session(proxy, image.token(exp=end))
    assert open_session(proxy, image.token(), **renewed) == renewed
    path = f"/images/{image.id}"
    statuses = []

    def has_ended():
        statuses.append(ask(proxy, "GET", path, session).status)
        return statuses[-1] != 200

    wait_until(has_ended)
    assert statuses[-1] == 401
    # Not a moment before.
    assert time.time() >= end
    assert ask(proxy, "GET", path, renewed).status == 200


def test_restarted_proxy_knows_no_session(image, tmp_path):
    token = image.token()
    path = f"/images/{image.id}"
    with run_proxy(tmp_path / "proxy") as proxy:
        session = open_session(proxy, token)
        assert ask(proxy, "PUT", path, {**session, "Content-Range": "bytes 0-9/*"}, b"0123456789").status == 200
    with run_proxy(tmp_path / "proxy") as proxy:
        assert ask(proxy, "GET", path, session).status == 401
        session = open_session(proxy, token)
        assert ask(proxy, "PUT", path, {**session, "Content-Range": "bytes 10-14/*"}, b"abcde").status == 200
    assert image.content[:15] == b"0123456789abcde"


def test_host_revokes(proxy, host, image):
    session = open_session(proxy, image.token())
    path = f"/images/{image.id}"
    before = image.content
    with contextlib.closing(Client(proxy)) as client:
        assert client.ask("GET", path, session).status == 200
        assert host.control("DELETE", f"/tickets/{image.id}")[0] == 204
        answer = client.ask("PUT", path, session, b"x" * 1000)
        assert answer.status == 403
        assert b"No such ticket" in answer.body
        assert image.id.encode() not in answer.body
    assert ask(proxy, "GET", path, session).status == 403
    assert ask(proxy, "POST", "/sessions", {"Authorization": image.token()}).status == 403
    assert image.content == before
    # The session itself lives.
    assert ask(proxy, "POST", "/sessions", session).status == 200


@pytest.mark.slow
def test_a_hundred_sessions_at_once(proxy, host, image):
    token = image.token()
    path = f"/images/{image.id}"
    content = image.content
    start = threading.Barrier(100)
    good = []

    def work(number):
        start.wait(DEADLINE)
        session = open_session(proxy, token)
        first = number * 1000
        answer = ask(proxy, "GET", path, {**session, "Range": f"bytes={first}-{first + 999}"})
        if answer.body == content[first : first + 1000]:
            good.append(session["Session-Id"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(good)) == 100
