"""/tickets over the real server, with the bytes that vdsm and the engine send."""

import contextlib
import json
import threading
import time

import pytest
from fakes.controlserver import ControlServer
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio.backends.null import NullBackend

UUID = "c0ffee00-5bd1-4d1c-9e5a-7e0d4d1a2b3c"
ENGINE_URL = f"https://server:port/images/{UUID}"


def document(uuid=UUID, **changes):
    return {"uuid": uuid, "size": 1024, "url": "file:///disk", "ops": ["read"], "timeout": 300, **changes}


def body(**changes):
    return json.dumps(document(**changes)).encode()


@pytest.fixture
def server(tmp_path):
    with ControlServer(tmp_path) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


# --- The real users, byte for byte ---


def vdsm(server, method, data=b""):
    """Send what vdsm sends: a new connection, no content type; read to the end of the answer."""
    length = f"Content-Length: {len(data)}\r\n" if data else ""
    head = f"{method} /tickets/{UUID} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n{length}\r\n"
    with server.client() as client:
        return client.ask(head.encode() + data, method)


def test_vdsm(server):
    ticket = document(filename="\u05d0.qcow2", ops=["write"], transfer_id="t-1", sparse=True, inactivity_timeout=60)
    answer = vdsm(server, "PUT", json.dumps(ticket).encode())
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")

    answer = vdsm(server, "GET")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    info = answer.json
    assert {key: info[key] for key in ticket} == ticket
    assert (info["active"], info["transferred"], info["canceled"]) == (False, 0, False)

    answer = vdsm(server, "PATCH", b'{"timeout": 400}')
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")
    assert 300 < vdsm(server, "GET").json["remaining"] <= 400

    for _ in range(2):
        answer = vdsm(server, "DELETE")
        assert (answer.status, answer.headers["content-length"], answer.body) == (204, "0", b"")
    answer = vdsm(server, "GET")
    assert (answer.status, answer.text) == (404, "No such ticket\n")
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"


def engine(server, method, data=b""):
    """Send what the engine sends: no Host, nothing but the length of a body."""
    length = f"Content-Length: {len(data)}\r\n" if data else ""
    with server.client() as client:
        return client.ask(f"{method} /tickets/{UUID} HTTP/1.1\r\n{length}\r\n".encode() + data, method)


def test_engine(tmp_path):
    with ControlServer(tmp_path, tcp=True) as server:
        ticket = document(
            inactivity_timeout=60,
            sparse=False,
            dirty=False,
            transfer_id="5a3c5b4e-1a51-4d36-a7d5-0b8a8a3f2f4b",
            url=ENGINE_URL,
        )
        started = time.monotonic()
        assert engine(server, "PUT", json.dumps(ticket).encode()).status == 200
        before = engine(server, "GET").json
        assert before["url"] == ENGINE_URL
        for key in ("timeout", "idle_time", "expires"):
            assert type(before[key]) is int and 0 <= before[key] < 2**31
        for key in ("size", "transferred"):
            assert type(before[key]) is int

        assert engine(server, "PATCH", b'{"timeout":600}').status == 200
        elapsed = time.monotonic() - started
        after = engine(server, "GET").json
        assert 300 <= after["expires"] - before["expires"] <= 301 + elapsed
        assert after["timeout"] == 300

        answer = engine(server, "DELETE")
        assert answer.status == 204
        # It demands an entity, even an empty one.
        assert answer.headers["content-length"] == "0"
        answer = engine(server, "GET")
        assert answer.head.startswith(b"HTTP/1.1 404 Not Found\r\n")
        assert int(answer.headers["content-length"]) == len(answer.body)


# --- Every verb ---


def test_kept_alive(client):
    for _ in range(3):
        assert client.put(f"/tickets/{UUID}", body()).status == 200
        assert client.get(f"/tickets/{UUID}").status == 200
        assert client.put(f"/tickets/{UUID}", b'{"timeout": 1}', method="PATCH").status == 200
        assert client.get(f"/tickets/{UUID}", method="DELETE").status == 204


def test_escaped_id(client):
    assert client.put("/tickets/a%20b%25%C3%BC", json.dumps(document("a b%\u00fc")).encode()).status == 200
    assert client.get("/tickets/a%20b%25%C3%BC").json["uuid"] == "a b%\u00fc"


def test_patch_inactivity_timeout(client):
    client.put(f"/tickets/{UUID}", body())
    assert client.put(f"/tickets/{UUID}", b'{"inactivity_timeout": 7}', method="PATCH").status == 200
    assert client.get(f"/tickets/{UUID}").json["inactivity_timeout"] == 7


def test_patch_revives_an_expired_ticket(client):
    client.put(f"/tickets/{UUID}", body(timeout=0))
    assert client.get(f"/tickets/{UUID}").json["remaining"] == 0
    assert client.put(f"/tickets/{UUID}", b'{"timeout": 100}', method="PATCH").status == 200
    assert client.get(f"/tickets/{UUID}").json["remaining"] > 90


def test_find(client):
    client.put(f"/tickets/{UUID}", body())
    client.put("/tickets/other", body(uuid="other"))
    [info] = client.get(f"/tickets?match={UUID[:4]}").json
    assert info["uuid"] == UUID
    assert client.get("/tickets?match=nothing").json == []
    answer = client.get("/tickets?match=")
    assert (answer.status, "Invalid match" in answer.text) == (400, True)


def test_pages_of_the_list(client):
    names = [f"t-{number}" for number in range(5)]
    for name in names:
        client.put(f"/tickets/{name}", body(uuid=name, transfer_id=name))

    def page(query):
        return [info["transfer_id"] for info in client.get(f"/tickets?{query}").json]

    assert page("limit=2") == names[:2]
    assert page("limit=2&offset=3") == names[3:]
    assert page("offset=4") == names[4:]
    assert page("limit=2&offset=9") == page("limit=0") == []
    assert client.get("/tickets?limit=-1").status == 400


def test_list(client):
    assert client.get("/tickets").json == []
    client.put(f"/tickets/{UUID}", body(url=ENGINE_URL, transfer_id="t-1"))
    answer = client.get("/tickets")
    [info] = answer.json
    assert (info["transfer_id"], info["uuid_prefix"]) == ("t-1", UUID[:8])
    assert UUID not in answer.text


def test_delete_all(client):
    for name in ("one", "two"):
        client.put(f"/tickets/{name}", body(uuid=name))
    assert client.get("/tickets/", method="DELETE").status == 204
    assert client.get("/tickets").json == []
    assert client.get("/tickets/", method="DELETE").status == 204


def test_methods(client):
    answer = client.get(f"/tickets/{UUID}", method="POST")
    assert (answer.status, answer.headers["allow"]) == (405, "HEAD,GET,PUT,PATCH,DELETE")
    answer = client.get("/tickets", method="DELETE")
    assert (answer.status, answer.headers["allow"]) == (405, "HEAD,GET")


# --- Waiting ---


def test_wait_ends_with_a_change(server, client):
    client.put(f"/tickets/{UUID}", body())
    version = client.get(f"/tickets/{UUID}").json["version"]
    answers = []

    def wait():
        with server.client() as waiter:
            answers.append(waiter.get(f"/tickets/{UUID}?wait=10&since={version}"))

    thread = threading.Thread(target=wait)
    thread.start()
    client.put(f"/tickets/{UUID}", b'{"timeout": 5}', method="PATCH")
    thread.join(DEADLINE)
    [answer] = answers
    assert answer.status == 200
    assert answer.json["version"] > version
    assert answer.json["remaining"] <= 5


def test_wait_for_what_happened_already(client):
    client.put(f"/tickets/{UUID}", body())
    assert client.get(f"/tickets/{UUID}?wait=300&since=0").status == 200


def test_wait_without_a_change(client):
    client.put(f"/tickets/{UUID}", body())
    version = client.get(f"/tickets/{UUID}").json["version"]
    assert client.get(f"/tickets/{UUID}?wait=0&since={version}").json["version"] == version


@pytest.mark.parametrize("query", ["wait=x", "wait=-1", "wait=1.5", "wait=", "since=x&wait=1"])
def test_bad_wait(client, query):
    client.put(f"/tickets/{UUID}", body())
    assert client.get(f"/tickets/{UUID}?{query}").status == 400


def test_wait_does_not_delay_a_stop(tmp_path, monkeypatch):
    with ControlServer(tmp_path) as server, server.client() as client:
        is_waiting = threading.Event()
        wait = server.store.wait

        def wait_and_tell(*arguments):
            if arguments[1]:
                is_waiting.set()
            return wait(*arguments)

        monkeypatch.setattr(server.store, "wait", wait_and_tell)
        client.put(f"/tickets/{UUID}", body())
        version = client.get(f"/tickets/{UUID}").json["version"]
        client.send(f"GET /tickets/{UUID}?wait=300&since={version} HTTP/1.1\r\n\r\n".encode())
        assert is_waiting.wait(DEADLINE)
        server.stop(grace=DEADLINE)
        answer = client.answer()
        assert (answer.status, answer.json["version"], answer.json["canceled"]) == (200, version, False)


def test_wait_for_an_unknown_ticket(client):
    assert client.get(f"/tickets/{UUID}?wait=300").status == 404


# --- Bad input ---


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "JSON object"),
        (b"{", "JSON object"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b'"ticket"', "JSON object"),
        (b"17", "JSON object"),
        (b"\xff\xfe", "JSON object"),
        (b'{"uuid": "\xe9"}', "JSON object"),
        (b"[" * 10_000, "JSON object"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "JSON object"),
        (b"1" * 5000, "JSON object"),
        (b'{"timeout": 1, "timeout": 2}', "same name"),
        (b"{}", "Invalid"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_bad_body(client, method, data, words):
    answer = client.put(f"/tickets/{UUID}", data, method=method)
    assert answer.status == 400
    assert words in answer.text
    assert answer.text.count("\n") == 1
    # It was read, so the next request is understood.
    assert client.get("/tickets").status == 200


def test_huge_body_is_not_read(client):
    head = f"PUT /tickets/{UUID} HTTP/1.1\r\nContent-Length: {10 * 1024**2}\r\n\r\n".encode()
    answer = client.ask(head + b" " * 4096, "PUT")
    assert answer.status == 413
    assert answer.closes


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
def test_empty_id(client, method):
    data = b"" if method == "GET" else body()
    assert client.put("/tickets/", data, method=method).status == 400


def test_id_with_a_slash(client):
    answer = client.put("/tickets/a%2Fb", body(uuid="a/b"))
    assert (answer.status, "slashes" in answer.text) == (400, True)
    assert client.get("/tickets/a/b").status == 404
    assert client.get("/tickets/a/b", method="DELETE").status == 204


def test_long_id(client):
    name = "a" * 3900
    assert client.put(f"/tickets/{name}", body(uuid=name)).status == 400
    assert client.get(f"/tickets/{name}").status == 404


def test_other_id_in_the_body(client):
    answer = client.put("/tickets/other", body())
    assert answer.status == 400
    assert UUID not in answer.text


def test_bad_ticket_names_key_value_and_expectation(client):
    answer = client.put(f"/tickets/{UUID}", body(size=True))
    assert answer.text == f"Invalid size True: expected an integer from 0 to {2**63 - 1}\n"


def test_patch_of_an_unknown_ticket(client):
    assert client.put(f"/tickets/{UUID}", b'{"timeout": 1}', method="PATCH").status == 404
    # The body is looked at first.
    assert client.put(f"/tickets/{UUID}", b'{"timeout": -1}', method="PATCH").status == 400


def test_log_and_errors_tell_no_ids(client, caplog):
    caplog.set_level("DEBUG")
    client.put(f"/tickets/{UUID}", body(url=ENGINE_URL))
    client.put(f"/tickets/{UUID}", body()[:-1])
    client.put(f"/tickets/{UUID}", body(size=UUID))
    client.put(f"/tickets/{UUID}", b'{"timeout": 1}', method="PATCH")
    client.get(f"/tickets/{UUID}")
    client.get(f"/tickets/{UUID}x")
    client.get(f"/tickets/{UUID}", method="POST")
    client.get(f"/tickets/{UUID}", method="DELETE")
    assert caplog.records
    assert UUID not in caplog.text


# --- While it is used ---


def wait_active(client, is_active):
    """Wait until something runs, or nothing any more: a client has the last byte before the server has noted it."""
    info = client.get(f"/tickets/{UUID}").json

    def is_so():
        nonlocal info
        if info["active"] is not is_active:
            info = client.get(f"/tickets/{UUID}?wait=1&since={info['version']}").json
        return info["active"] is is_active

    wait_until(is_so, lambda: info)
    return info


def test_delete_while_connections_stream(tmp_path):
    """Clients that stopped reading in the middle of their answers do not hold up a removal."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ControlServer(tmp_path, open_backend=lambda *opening: NullBackend(2**40)))
        client = stack.enter_context(server.client())
        client.put(f"/tickets/{UUID}", body(size=2**40))
        for _ in range(8):
            reader = stack.enter_context(server.client())
            reader.send(f"GET /images/{UUID} HTTP/1.1\r\n\r\n".encode())
            assert b" 200 OK" in reader.read_until(b"\r\n\r\n")
        info = client.get(f"/tickets/{UUID}").json
        assert (info["active"], info["connections"]) == (True, 8)
        assert client.get(f"/tickets/{UUID}", method="DELETE").status == 204
        assert client.get(f"/tickets/{UUID}").status == 404


def test_delete_of_a_stalled_upload(tmp_path):
    with ControlServer(tmp_path, remove_grace=0) as server, server.client() as client, server.client() as writer:
        client.put(f"/tickets/{UUID}", body(ops=["write"]))
        writer.send(f"PUT /images/{UUID} HTTP/1.1\r\nContent-Length: 1024\r\n\r\nbegin".encode())
        wait_active(client, True)
        removers = [server.client() for _ in range(2)]
        for remover in removers:
            remover.send(f"DELETE /tickets/{UUID} HTTP/1.1\r\n\r\n".encode())
        assert [remover.answer("DELETE").status for remover in removers] == [204, 204]
        for remover in removers:
            remover.close()
        assert writer.read_to_end() == b""


def test_delete_times_out(tmp_path):
    control = ControlServer(tmp_path, remove_timeout=0.05, remove_grace=1000)
    with control as server, server.client() as client, server.client() as writer:
        client.put(f"/tickets/{UUID}", body(ops=["write"], transfer_id="t-1"))
        writer.send(f"PUT /images/{UUID} HTTP/1.1\r\nContent-Length: 1024\r\n\r\nbegin".encode())
        wait_active(client, True)
        answer = client.get(f"/tickets/{UUID}", method="DELETE")
        assert answer.status == 409
        assert "Transfer t-1 is still busy" in answer.text
        assert "write of 1024 bytes at 0" in answer.text
        info = client.get(f"/tickets/{UUID}").json
        assert (info["canceled"], info["active"]) == (True, True)
        # Nothing new may begin.
        with server.client() as other:
            answer = other.get(f"/images/{UUID}")
            assert (answer.status, answer.closes, "No such ticket" in answer.text) == (403, True, True)
        # What is on its way arrives.
        writer.send(b"e" * 1019)
        assert writer.answer("PUT").status == 200
        wait_active(client, False)
        assert client.get(f"/tickets/{UUID}", method="DELETE").status == 204


def test_asynchronous_delete(tmp_path):
    control = ControlServer(tmp_path, remove_timeout=0, remove_grace=1000)
    with control as server, server.client() as client, server.client() as writer:
        client.put(f"/tickets/{UUID}", body(ops=["write"]))
        writer.send(f"PUT /images/{UUID} HTTP/1.1\r\nContent-Length: 1024\r\n\r\nbegin".encode())
        wait_active(client, True)
        assert client.get(f"/tickets/{UUID}", method="DELETE").status == 204
        info = client.get(f"/tickets/{UUID}").json
        assert (info["canceled"], info["active"]) == (True, True)
        writer.send(b"e" * 1019)
        assert writer.answer("PUT").status == 200
        wait_active(client, False)
        assert client.get(f"/tickets/{UUID}", method="DELETE").status == 204
        assert client.get(f"/tickets/{UUID}").status == 404


def test_put_over_a_live_ticket(server, client):
    client.put(f"/tickets/{UUID}", body(transfer_id="old"))
    with server.client() as reader:
        assert reader.get(f"/images/{UUID}").status == 200
        wait_active(client, False)
        client.put(f"/tickets/{UUID}", body(transfer_id="new"))
        info = client.get(f"/tickets/{UUID}").json
        assert (info["transfer_id"], info["connections"]) == ("new", 0)
        assert reader.get(f"/images/{UUID}").status == 200
        assert client.get(f"/tickets/{UUID}").json["connections"] == 1
        assert server.backends.leaked == 1


def test_progress_over_http(server, client):
    client.put(f"/tickets/{UUID}", body())
    with server.client() as reader:
        for range_ in ("0-99", "100-199", "50-149", "500-599"):
            assert reader.get(f"/images/{UUID}", f"Range: bytes={range_}").status == 206
        info = wait_active(client, False)
        assert (info["transferred"], info["connections"]) == (300, 1)
        [told] = info["clients"]
        assert (told["protocol"], told["connections"], told["received"], told["sent"]) == ("http", 1, 0, 400)


def test_delete_while_slow_storage_writes(tmp_path):
    """The client has sent everything: however long the storage takes, it gets its answer."""
    is_writing, may_go_on = threading.Event(), threading.Event()

    class SlowBackend(NullBackend):
        def write(self, offset, view):
            is_writing.set()
            assert may_go_on.wait(DEADLINE)

    control = ControlServer(
        tmp_path, open_backend=lambda *opening: SlowBackend(1024), remove_timeout=0.05, remove_grace=0
    )
    with control as server, server.client() as client, server.client() as writer:
        client.put(f"/tickets/{UUID}", body(ops=["write"]))
        writer.send(f"PUT /images/{UUID} HTTP/1.1\r\nContent-Length: 4\r\n\r\ndata".encode())
        assert is_writing.wait(DEADLINE)
        assert client.get(f"/tickets/{UUID}", method="DELETE").status == 409
        server.store.tick()
        server.store.tick()
        may_go_on.set()
        assert writer.answer("PUT").status == 200
        wait_active(client, False)
        assert client.get(f"/tickets/{UUID}", method="DELETE").status == 204
