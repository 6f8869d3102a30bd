from __future__ import annotations

import contextlib
import logging
import re
import resource
import socket
import ssl
import threading

import pytest
from fakes import toy
from fakes.ciphertext import by_hand, drip
from fakes.raw_client import RawClient, connect
from fakes.waiting import DEADLINE, wait_until
from real import certificates

from ovirt_imageio.httpd.limits import Limits
from ovirt_imageio.httpd.listener import ListenError, TcpAddress, UnixAddress
from ovirt_imageio.httpd.server import Server
from ovirt_imageio.net import tls

LOOPBACK = TcpAddress("127.0.0.1", 0)


@pytest.fixture(scope="module")
def made():
    return certificates.certificate()


@pytest.fixture
def provider(made):
    return tls.ServerContext(made.cert_file, made.key_file)


@pytest.fixture
def trust(made):
    return tls.client_context(made.ca_file)


def test_tcp():
    with toy.serving() as server:
        assert (server.port, server.path) == (server.address.port, "")
        assert server.port > 0
        with connect(server) as client:
            assert client.get("/echo/a").status == 200
            nodelay = client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert nodelay in (0, 1)
            assert server.connections == 1


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_unix(tmp_path, kind, caplog):
    caplog.set_level(logging.INFO)
    address = UnixAddress(str(tmp_path / "sock") if kind == "path" else "")
    with toy.serving(address=address) as server:
        assert server.port == 0
        with connect(server) as client:
            assert client.get("/echo/a").status == 200
    assert "client=local" in caplog.text


def test_tls(provider, trust):
    with toy.serving(tls=provider) as server, connect(server, trust) as client:
        assert client.sock.version() == "TLSv1.3"
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        assert client.get("/echo/a").status == 200
        assert client.put("/echo/a", bytes(1 << 20)).json == {"size": 1 << 20}
        assert len(client.get("/stream?size=10000000").body) == 10_000_000


def test_tls_says_goodbye(provider, trust):
    # Without the goodbye a client cannot tell the end of a body from an attack.
    with toy.serving(tls=provider) as server, connect(server, trust) as client:
        client.sock.suppress_ragged_eofs = False
        assert client.ask(b"GET /stream?size=5&length=n HTTP/1.0\r\n\r\n").body == b"xxxxx"


def test_early_refusal_over_tls(provider, trust):
    with toy.serving(tls=provider) as server, connect(server, trust) as client:
        client.send(b"POST /echo/a HTTP/1.1\r\ncontent-length: 9000000\r\n\r\n")
        # One after the other: OpenSSL lets no two threads use a connection at once. What is sent in vain is taken.
        client.sock.sendall(bytes(9_000_000))
        assert client.answer().status == 403


def test_plain_http_on_tls(provider):
    with toy.serving(tls=provider) as server, connect(server) as client:
        answer = client.get("/echo/a")
        assert (answer.status, answer.closes) == (400, True)
        assert "https" in answer.text
        assert client.is_closed()


# How a client over TLS may be slow: its first bytes in the clear, and what is then dripped as one record.
SLOW = {
    "idle": (b"", b"GET /echo/a HTTP/1.1\r\n" + b"x: y\r\n" * 100),
    "head": (b"GET /echo/a HTTP/1.1\r\n", b"x: y\r\n" * 100),
    "body": (b"PUT /echo/a HTTP/1.1\r\ncontent-length: 9000\r\n\r\n", bytes(9000)),
    "chunk": (b"PUT /echo/a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"2328\r\n" + bytes(9000)),
    "rest of a body": (b"PUT /echo/a HTTP/1.1\r\ncontent-length: 9000\r\n\r\n" + bytes(10), bytes(8990)),
}


@pytest.mark.parametrize("first, record", SLOW.values(), ids=SLOW)
def test_pieces_of_a_tls_record_are_no_progress(provider, trust, first, record):
    """Each byte comes in time, and they are of no use: the connection ends long before the record does."""
    limits = Limits(idle_timeout=0.2, header_timeout=0.2, io_timeout=0.2, linger_timeout=0.01)
    with toy.serving(tls=provider, limits=limits) as server, by_hand(("127.0.0.1", server.port), trust) as client:
        if first:
            client.send(client.encrypt(first))
        data = client.encrypt(record)
        assert drip(client, data, 0.05) < len(data)
        wait_until(lambda: server.connections == 0)


def test_flood_of_empty_tls_records(provider, trust):
    with (
        toy.serving(tls=provider, limits=Limits(linger_timeout=0.01)) as server,
        by_hand(("127.0.0.1", server.port), trust) as client,
    ):
        client.send(client.empty_records(5))
        assert not client.is_closed()
        with pytest.raises(OSError):
            while True:
                client.send(client.empty_records(1000))
        wait_until(lambda: server.connections == 0)


def test_silent_handshakes_bother_nobody(provider, trust):
    with toy.serving(tls=provider) as server, contextlib.ExitStack() as stack:
        for data in [b"", b"\x16", b"\x16\x03\x01"] * 10:
            stack.enter_context(connect(server)).send(data)
        client = stack.enter_context(connect(server, trust))
        assert client.get("/echo/a").status == 200


def test_handshake_deadline(provider):
    server = Server(LOOPBACK, toy.application(), tls=provider, limits=Limits(handshake_timeout=0.05))
    # What comes after the deadline would meet a closed socket: it is there before the server looks.
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        client = stack.enter_context(connect(server))
        client.send(b"\x16\x03\x01")
        server.start()
        assert client.is_closed()


def test_certificate_reload(tmp_path, trust):
    def install(name):
        made = certificates.certificate(name)
        for source, target in (made.cert_file, "cert.pem"), (made.key_file, "key.pem"):
            with open(source) as file:
                (tmp_path / target).write_text(file.read())

    def subject(client):
        return dict(pair for part in client.sock.getpeercert()["subject"] for pair in part)["commonName"]

    install("server")
    provider = tls.ServerContext(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with toy.serving(tls=provider) as server, connect(server, trust) as old:
        assert subject(old) == "server"
        install("renewed")
        provider.reload()
        with connect(server, trust) as new:
            assert subject(new) == "renewed"
            assert new.get("/echo/a").status == 200
        assert old.get("/echo/a").status == 200


def test_too_many_connections():
    limits = Limits(connections=2, waiting_grace=DEADLINE)
    with toy.serving(limits=limits) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(2)]
        assert [client.get("/echo/a").status for client in clients] == [200, 200]
        with connect(server) as excess:
            answer = excess.get("/echo/a")
            assert (answer.status, answer.closes) == (503, True)
            assert answer.headers["retry-after"] == "5"
            assert "limit of 2 connections" in answer.text
        # A client that has a connection keeps it.
        assert clients[0].get("/echo/a").status == 200


def test_room_after_a_client_left():
    with toy.serving(limits=Limits(connections=1)) as server:
        for _ in range(3):
            # The thread of the one before needs a moment to end.
            wait_until(lambda: server.connections == 0)
            with connect(server) as client:
                assert client.get("/echo/a").status == 200


# One client, and others are refused, not let in instead of it.
ONE = Limits(connections=1, linger_timeout=DEADLINE, waiting_grace=DEADLINE)


def test_far_too_many_connections(monkeypatch):
    monkeypatch.setattr("ovirt_imageio.httpd.server.REFUSERS", 1)
    with toy.serving(limits=ONE) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(3)]
        assert clients[0].get("/echo/a").status == 200
        assert clients[1].get("/echo/a").status == 503
        with contextlib.suppress(ConnectionError):
            assert clients[2].is_closed()


def connect_from(server, address):
    sock = socket.create_connection(("127.0.0.1", server.port), DEADLINE, source_address=(address, 0))
    return RawClient(sock)


def test_one_address_does_not_get_all_connections():
    limits = Limits(connections=10, client_connections=2)
    with toy.serving(limits=limits) as server, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(server))
        with connect(server) as excess:
            answer = excess.get("/echo/a")
            assert (answer.status, answer.closes) == (503, True)
            assert answer.headers["retry-after"] == "5"
            assert "Your address has its limit of 2 connections" in answer.text
        with connect_from(server, "127.0.0.2") as other:
            assert other.get("/echo/a").status == 200


@pytest.mark.parametrize("sends", [b"", b"GET / HTTP/1.1\r\n", b"GET /echo/a HTTP/1.1\r\n\r\n"], ids=len)
def test_waiting_clients_make_room(sends):
    """Whether they said nothing, a part, or are idle; one whose request is being answered does not."""
    gate = toy.Gate()
    limits = Limits(connections=3, waiting_grace=0)
    with toy.serving(toy.application((r"/gate", gate)), limits=limits) as server, contextlib.ExitStack() as stack:
        busy = stack.enter_context(connect(server))
        busy.send(b"GET /gate HTTP/1.1\r\n\r\n")
        assert gate.entered.wait(DEADLINE)
        slow = [stack.enter_context(connect(server)) for _ in range(2)]
        for client in slow:
            client.send(sends)
        if sends.endswith(b"\r\n\r\n"):
            assert [client.answer().status for client in slow] == [200, 200]
        new = stack.enter_context(connect(server))
        # Between two threads, the one that waits longer may not be known to the door yet.
        assert new.get("/echo/a").status in (200, 503)
        wait_until(lambda: connect_and_ask(server) == 200)
        assert any(is_gone(client) for client in slow)
        gate.opened.set()
        assert busy.answer().status == 200


def connect_and_ask(server):
    with connect(server) as client:
        return client.get("/echo/a").status


def is_gone(client):
    client.sock.setblocking(False)
    try:
        return client.sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_refusals_are_summarized(caplog):
    caplog.set_level(logging.INFO)
    with toy.serving(limits=ONE) as server, connect(server) as first:
        assert first.get("/echo/a").status == 200
        for _ in range(20):
            with connect(server) as excess:
                assert excess.get("/echo/a").status == 503
    lines = [record.getMessage() for record in caplog.records if "efused" in record.getMessage()]
    assert lines[0] == (
        "Refused a connection client=127.0.0.1: The server has its limit of 1 connections, try again later"
    )
    # Only a machine that is slow beyond all measure has time for a second one.
    assert len(lines) <= 3
    assert sum("OPEN" in record.getMessage() for record in caplog.records) == 1


def test_observer_and_log(caplog):
    caplog.set_level(logging.INFO)
    recorder = toy.Recorder()
    with toy.serving(observer=recorder, name="toy.service") as server:
        with connect(server) as client:
            client.get("/echo/a")
        recorder.wait(lambda: recorder.closed)
    assert recorder.opened == recorder.closed
    number = recorder.opened[0]
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert messages[0] == f"Listening service=toy.service address=127.0.0.1:{server.port}"
    assert messages[1] == f"OPEN connection={number} client=127.0.0.1"
    close = rf"CLOSE connection={number} client=127\.0\.0\.1 \[connection 1 ops, \S+ s\] \[dispatch 1 ops, \S+ s\]"
    assert re.fullmatch(close, messages[2])


def test_log_tells_who_encrypts(provider, trust, caplog):
    caplog.set_level(logging.INFO)
    recorder = toy.Recorder()
    with toy.serving(tls=provider, observer=recorder) as server:
        with connect(server, trust) as client:
            client.get("/echo/a")
        recorder.wait(lambda: recorder.closed)
    assert re.search(r"CLOSE connection=\d+ client=127\.0\.0\.1 tls=memory \[connection", caplog.text)


def test_stop_closes_idle_connections():
    recorder, limits = toy.Recorder(), Limits(newcomer_grace=0.01)
    with toy.serving(observer=recorder, limits=limits) as server, connect(server) as idle, connect(server) as fresh:
        assert idle.get("/echo/a").status == 200
        recorder.wait(lambda: len(recorder.opened) == 2)
        server.stop(grace=DEADLINE)
        assert idle.is_closed()
        assert fresh.is_closed()
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            connect(server)


def stop_in_thread(server, grace):
    thread = threading.Thread(target=server.stop, args=(grace,))
    thread.start()
    return thread


def test_stop_answers_a_newcomer():
    """It was accepted just before, and its client knows nothing of a stop."""
    recorder, limits = toy.Recorder(), Limits(newcomer_grace=DEADLINE)
    with toy.serving(observer=recorder, limits=limits) as server, connect(server) as client:
        recorder.wait(lambda: len(recorder.opened) == 1)
        stopper = stop_in_thread(server, DEADLINE)
        wait_until(lambda: is_refused(server))
        assert client.get("/echo/a").status == 200
        assert client.is_closed()
        stopper.join(DEADLINE)
        assert not stopper.is_alive()


def test_stop_lets_running_requests_finish():
    gate = toy.Gate()
    with toy.serving(toy.application(("/gate", gate))) as server, connect(server) as client:
        client.send(b"GET /gate HTTP/1.1\r\n\r\n")
        assert gate.entered.wait(DEADLINE)
        stopper = stop_in_thread(server, DEADLINE)
        wait_until(lambda: is_refused(server))
        gate.opened.set()
        assert client.answer().text == "open\n"
        assert client.is_closed()
        stopper.join(DEADLINE)
        assert not stopper.is_alive()


def is_refused(server):
    """Tell whether the server has stopped to accept."""
    try:
        connect(server).close()
    except ConnectionError:
        return True
    return False


def test_stop_cuts_off_after_the_grace():
    with toy.serving() as server, connect(server) as client:
        # An upload that never goes on.
        client.send(b"PUT /echo/a HTTP/1.1\r\ncontent-length: 50\r\nexpect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        server.stop(grace=0.05)
        assert client.is_closed()
        assert server.connections == 0


def test_stop_before_start(tmp_path):
    path = tmp_path / "sock"
    server = Server(UnixAddress(str(path)), toy.application())
    assert path.exists()
    server.stop()
    server.stop()
    assert not path.exists()


def test_cannot_listen():
    with toy.serving() as server, pytest.raises(ListenError):
        Server(server.address, toy.application())


def test_no_more_threads(monkeypatch, caplog):
    with toy.serving() as server:

        def start(self):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with connect(server) as client:
                assert client.is_closed()
        assert "can't start new thread" in caplog.text
        with connect(server) as client:
            assert client.get("/echo/a").status == 200


def test_no_more_files(caplog):
    with toy.serving() as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as waiting:
            waiting.settimeout(DEADLINE)
            highest = waiting.fileno() + 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            try:
                waiting.connect(("127.0.0.1", server.port))
                wait_until(lambda: "limit of open files" in caplog.text)
                with pytest.raises(socket.timeout):
                    waiting.settimeout(0.1)
                    waiting.recv(1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            # The one that waited is served as soon as there is room.
            waiting.settimeout(DEADLINE)
            waiting.sendall(b"GET /echo/a HTTP/1.1\r\n\r\n")
            assert waiting.recv(8) == b"HTTP/1.1"


@pytest.mark.slow
@pytest.mark.parametrize("count", [2000])
def test_idle_connections(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * count + 200:
        pytest.skip(f"Needs {2 * count + 200} open files, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * count + 200), hard))
    try:
        with toy.serving() as server, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(count)]
            assert clients[-1].get("/echo/a").status == 200
            assert server.connections == count
            assert clients[0].get("/echo/a").status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_untrusted_certificate(provider, caplog):
    recorder = toy.Recorder()
    with toy.serving(tls=provider, observer=recorder) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(server, tls.client_context(certificates.self_signed("stranger").ca_file))
        recorder.wait(lambda: recorder.closed)
    assert "handshake failed" in caplog.text
