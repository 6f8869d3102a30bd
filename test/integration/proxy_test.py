"""Two real daemons: a host that has the images, and a proxy on the way to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass

import pytest

pytest.importorskip("cryptography")

from auth import token_test
from fakes import ports
from fakes.chaos import ChaosProxy
from fakes.origin import TICKET_ID, DiskOrigin, ScriptedOrigin
from fakes.waiting import DEADLINE, wait_until
from real import certificates, daemon, network, tokens

MIB = 1024**2
# No multiple of anything.
SIZE = 3 * MIB + 12345

AUTHORITY = tokens.make_authority("CA1")
FOREIGN = tokens.make_authority("CA2")
ENGINE = tokens.issue("engine", tokens.rsa_key("engine"), AUTHORITY)
OTHER = tokens.issue("engine", tokens.rsa_key("other"), AUTHORITY)

PROXY = """\
[backend_http]
ca_file = {ca_file}
connect_timeout = {connect_timeout}
read_timeout = {read_timeout}
[local]
enable = false
[sessions]
enable = true
engine_cert_file = {engine}
engine_ca_cert_file = {authority}
"""

# Otherwise the proxy, on the same host, would take the shortcut.
HOST = """\
[local]
enable = {local}
"""


@contextlib.contextmanager
def run_proxy(folder, timeout=daemon.DEADLINE, engine=ENGINE, authority=AUTHORITY, ca_file=None):
    folder.mkdir(exist_ok=True)
    (folder / "engine.cer").write_bytes(engine.pem)
    (folder / "ca.pem").write_bytes(authority.pem)
    text = PROXY.format(
        ca_file=ca_file or certificates.authority().cert_file,
        connect_timeout=timeout,
        read_timeout=timeout,
        engine=folder / "engine.cer",
        authority=folder / "ca.pem",
    )
    with daemon.running(folder, text) as running:
        yield running


@contextlib.contextmanager
def run_host(folder, local=False, **options):
    folder.mkdir(exist_ok=True)
    with daemon.running(folder, HOST.format(local=str(local).lower()), **options) as running:
        yield running


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)


class Client:
    """Speaks to a daemon over one connection."""

    def __init__(self, to):
        self._connection = to.connect()

    def ask(self, method, path, headers=None, body=None):
        self._connection.request(method, path, body, headers or {})
        response = self._connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def close(self):
        self._connection.close()


def ask(to, method, path, headers=None, body=None):
    """One request over a connection of its own."""
    with contextlib.closing(Client(to)) as client:
        return client.ask(method, path, headers, body)


class Image:
    """An image on a host: its file, and its ticket."""

    def __init__(self, host, folder, data=None, size=SIZE, **fields):
        self.host = host
        self.id = str(uuid.uuid4())
        self.path = folder / self.id
        self.path.write_bytes(os.urandom(size) if data is None else data)
        self.size = self.path.stat().st_size
        self.url = host.add_ticket(self.id, url=f"file://{self.path}", size=self.size, **fields)

    @property
    def content(self):
        return self.path.read_bytes()

    def offer(self, proxy, **fields):
        """Let the proxy serve it with an ordinary ticket; return the path there."""
        return "/images/" + proxy.add_ticket(size=self.size, url=self.url, **fields).rpartition("/")[2]

    def token(self, signer=ENGINE, now=None, **changes):
        host = self.url.rpartition("/images/")[0]
        return tokens.make_token(signer, now, **{"imaged-uri": host, "transfer-ticket": self.id, **changes})


@pytest.fixture(scope="module", params=[False, True], ids=["tcp", "unix"])
def any_host(request, tmp_path_factory):
    with run_host(tmp_path_factory.mktemp("host"), request.param) as host:
        yield host


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with run_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    with run_proxy(tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture
def image(host, tmp_path):
    return Image(host, tmp_path)


# --- What goes through the proxy is what the host answers ---

READS = [
    ("GET", "", {}),
    ("HEAD", "", {}),
    ("GET", "", {"Range": "bytes=0-0"}),
    ("GET", "", {"Range": "bytes=4095-8192"}),
    ("GET", "", {"Range": f"bytes={MIB - 1}-{2 * MIB + 1}"}),
    ("GET", "", {"Range": f"bytes={SIZE - 100}-"}),
    ("GET", "", {"Range": "bytes=-100"}),
    ("GET", "", {"Range": f"bytes=10-{SIZE + 100}"}),
    ("GET", "", {"Range": f"bytes={SIZE}-"}),
    ("GET", "", {"Range": "bytes=5-3"}),
    ("GET", "", {"Range": "bytes=0-1,5-6"}),
    ("GET", "/extents", {}),
    ("GET", "/extents?context=dirty", {}),
    ("GET", "/extents?context=color", {}),
    ("GET", "/extents?offset=4096&length=8192", {}),
    ("GET", "/checksum", {}),
    ("GET", "/checksum?algorithm=sha1&block_size=1048576", {}),
    ("GET", "/checksum?algorithm=nonsense", {}),
    ("GET", "/checksum/algorithms", {}),
    ("POST", "", {}),
]

SHOWN = ("content-length", "content-range", "content-type", "content-disposition", "accept-ranges", "allow")


@pytest.mark.parametrize("method,suffix,headers", READS)
def test_same_answer(any_host, proxy, tmp_path, method, suffix, headers):
    image = Image(any_host, tmp_path, filename="disk ü.raw")
    path = image.offer(proxy, filename="disk ü.raw")
    direct = ask(any_host, method, f"/images/{image.id}{suffix}", headers)
    proxied = ask(proxy, method, path + suffix, headers)
    assert proxied.status == direct.status
    if direct.status < 400:
        assert proxied.body == direct.body
        for name in SHOWN:
            assert proxied.headers.get(name) == direct.headers.get(name)


WRITES = [
    ("PUT", "", {}, b"x" * SIZE),
    ("PUT", "", {}, b""),
    ("PUT", "", {}, b"x"),
    ("PUT", "?flush=n", {"Content-Range": "bytes 4095-8192/*"}, b"x" * 4098),
    ("PUT", "?flush=y", {"Content-Range": f"bytes {SIZE - 10}-{SIZE - 1}/{SIZE}"}, b"x" * 10),
    ("PUT", "", {"Content-Range": "bytes 100-*/*"}, b"x" * (2 * MIB)),
    ("PUT", "", {"Content-Range": f"bytes {SIZE - 9}-{SIZE}/*"}, b"x" * 10),
    ("PUT", "", {"Content-Range": "bytes 9-5/*"}, b"x" * 10),
    ("PUT", "?flush=maybe", {}, b"x"),
    ("PATCH", "", {}, b'{"op": "zero", "offset": 4095, "size": 100000}'),
    ("PATCH", "", {}, b'{"op": "zero", "size": 10, "flush": true}'),
    ("PATCH", "", {}, b'{"op": "zero", "offset": %d, "size": 10}' % SIZE),
    ("PATCH", "", {}, b'{"op": "flush"}'),
    ("PATCH", "", {}, b'{"op": "explode"}'),
    ("PATCH", "", {}, b"[]"),
]


@pytest.mark.parametrize("method,suffix,headers,body", WRITES)
def test_same_effect(any_host, proxy, tmp_path, method, suffix, headers, body):
    data = os.urandom(SIZE)
    (tmp_path / "a").mkdir()
    direct_image, proxied_image = Image(any_host, tmp_path, data), Image(any_host, tmp_path / "a", data)
    direct = ask(any_host, method, f"/images/{direct_image.id}{suffix}", headers, body)
    proxied = ask(proxy, method, proxied_image.offer(proxy) + suffix, headers, body)
    assert proxied.status == direct.status
    assert proxied_image.content == direct_image.content


def test_options_are_those_of_the_origin(any_host, proxy, tmp_path):
    image = Image(any_host, tmp_path)
    direct = ask(any_host, "OPTIONS", f"/images/{image.id}").json()
    answer = ask(proxy, "OPTIONS", image.offer(proxy))
    proxied = answer.json()
    assert answer.headers["allow"] == "OPTIONS,GET,PUT,PATCH"
    for name in ("features", "max_readers", "max_writers", "size"):
        assert proxied[name] == direct[name]
    # The local service is switched off here.
    assert "unix_socket" not in proxied


def test_chunked_upload(any_host, proxy, tmp_path):
    image = Image(any_host, tmp_path)
    data = os.urandom(2 * MIB + 7)
    answer = ask(proxy, "PUT", image.offer(proxy), {}, iter([data[:MIB], data[MIB:]]))
    assert answer.status == 200
    assert image.content[: len(data)] == data


def test_half_and_half(proxy, host, image):
    """The same image, through the proxy and directly."""
    data = os.urandom(SIZE)
    path = image.offer(proxy)
    assert ask(proxy, "PUT", path, {"Content-Range": f"bytes 0-{MIB - 1}/*"}, data[:MIB]).status == 200
    where = {"Content-Range": f"bytes {MIB}-{SIZE - 1}/*"}
    assert ask(host, "PUT", f"/images/{image.id}", where, data[MIB:]).status == 200
    assert ask(proxy, "GET", path).body == data == image.content


def test_browser_upload(proxy, image):
    """As the engine's web pages do it: a few chunks on one connection, the last one says goodbye."""
    path = image.offer(proxy)
    data = os.urandom(SIZE)
    with contextlib.closing(Client(proxy)) as client:
        for start in range(0, SIZE, MIB):
            piece = data[start : start + MIB]
            is_last = start + MIB >= SIZE
            headers = {
                "Cache-Control": "no-cache",
                "Pragma": "no-cache",
                "Content-Range": f"bytes {start}-{start + len(piece) - 1}/{SIZE}",
                "Content-Type": "application/octet-stream",
                "Origin": "https://engine.example",
            }
            answer = client.ask("PUT", path + ("?close=y" if is_last else "?flush=n"), headers, piece)
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["connection"] == "close"
    assert image.content == data


def test_nothing_passes_in_the_clear(proxy, host, tmp_path):
    """Neither between client and proxy, nor between proxy and host."""
    data = b"a secret of this disk " * 1000
    image = Image(host, tmp_path, data)
    with (
        ChaosProxy(("localhost", host.port), keep=True) as behind,
        ChaosProxy(("localhost", proxy.port), keep=True) as before,
    ):
        url = f"https://localhost:{behind.port}/images/{image.id}"
        path = "/images/" + proxy.add_ticket(size=image.size, url=url).rpartition("/")[2]
        connection = http.client.HTTPSConnection("localhost", before.port, timeout=DEADLINE, context=proxy.tls)
        with contextlib.closing(connection):
            connection.request("GET", path)
            assert connection.getresponse().read() == data
            connection.request("PUT", path, data)
            assert connection.getresponse().status == 200
    for seen in (before.seen, behind.seen):
        assert len(seen) > 2 * len(data)
        assert b"a secret" not in seen
        assert b"/images/" not in seen


@pytest.mark.storage
def test_client_that_cannot_reach_the_host(host, tmp_path):
    """That is what the proxy is for."""
    if not network.available():
        pytest.skip("needs root, ip and network namespaces")
    image = Image(host, tmp_path)
    folder = tmp_path / "proxy"
    folder.mkdir()
    with network.apart() as net:
        text = f"[remote]\nhost = {net.address}\n[backend_http]\nca_file = {certificates.authority().cert_file}\n"
        with daemon.running(folder, text) as proxy:

            def curl(port, path):
                where = ["--connect-to", f"localhost:{port}:{net.address}:{port}", "--cacert", proxy.ca_file]
                command = [
                    *net.command,
                    "curl",
                    "-sS",
                    "--max-time",
                    str(DEADLINE),
                    *where,
                    f"https://localhost:{port}{path}",
                ]
                return subprocess.run(command, capture_output=True, check=False)

            # 7: nobody there could be reached.
            assert curl(host.port, f"/images/{image.id}").returncode == 7
            assert curl(proxy.port, image.offer(proxy)).stdout == image.content


# --- Sessions ---


def open_session(proxy, token, **headers):
    answer = ask(proxy, "POST", "/sessions", {"Authorization": token, **headers})
    assert answer.status == 200, answer.body
    return {"Session-Id": answer.headers["session-id"]}


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
    """None opens a session, none is an internal error, and nobody is asked about any of them."""
    with run_proxy(tmp_path / "proxy", engine=token_test.ENGINE, authority=token_test.AUTHORITY) as proxy:
        with contextlib.closing(Client(proxy)) as client:
            for name, text in token_test.BAD.items():
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


# --- Who is trusted ---


def test_engine_of_another_authority(image, tmp_path):
    stranger = tokens.issue("engine", tokens.rsa_key("engine"), FOREIGN)
    with run_proxy(tmp_path / "proxy", engine=stranger) as proxy:
        assert ask(proxy, "POST", "/sessions", {"Authorization": image.token(stranger)}).status == 401


def test_host_of_another_authority(tmp_path, proxy):
    certificate = certificates.self_signed("foreign")
    with run_host(tmp_path / "host", tls=certificate) as host:
        image = Image(host, tmp_path)
        assert ask(proxy, "GET", image.offer(proxy)).status == 502
        assert ask(proxy, "POST", "/sessions", {"Authorization": image.token()}).status == 502
        # It was not told what for.
        assert "OPTIONS" not in host.log()


def test_host_with_another_name(tmp_path, proxy, image):
    certificate = certificates.certificate("misnamed", "DNS:elsewhere.example")
    with run_host(tmp_path / "host", tls=certificate) as host:
        image = Image(host, tmp_path)
        assert ask(proxy, "GET", image.offer(proxy)).status == 502
        assert "OPTIONS" not in host.log()


def test_sessions_only_when_configured(host):
    for method, path in (
        ("POST", "/sessions"),
        ("POST", "/sessions/"),
        ("DELETE", "/sessions/x"),
        ("OPTIONS", "/sessions"),
    ):
        assert ask(host, method, path).status == 404


@pytest.mark.parametrize("missing", ["engine.cer", "ca.pem"])
def test_certificates_that_are_missing(tmp_path, missing):
    (tmp_path / "engine.cer").write_bytes(ENGINE.pem)
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    (tmp_path / missing).unlink()
    text = PROXY.format(
        ca_file=certificates.authority().cert_file,
        connect_timeout=10,
        read_timeout=10,
        engine=tmp_path / "engine.cer",
        authority=tmp_path / "ca.pem",
    )
    daemon.write_config(tmp_path, text)
    with daemon.start(tmp_path, stderr=-1) as process:
        error = process.communicate(timeout=DEADLINE)[1].decode()
    assert process.returncode != 0
    assert missing in error


# --- Faults of the host ---


@pytest.fixture
def weak_host(tmp_path):
    """A host that a test may harm."""
    with run_host(tmp_path / "host") as host:
        yield host


def revive(host):
    """Let go of a host that was stopped or killed, so that the fixture can end it."""
    with contextlib.suppress(ProcessLookupError):
        host.process.send_signal(signal.SIGCONT)


class Download:
    """Reads a bit of an image through the proxy, and the rest when it is told to."""

    def __init__(self, proxy, path):
        self._connection = proxy.connect()
        self._connection.request("GET", path)
        self.response = self._connection.getresponse()
        self.first = self.response.read(MIB)

    def rest(self):
        with contextlib.closing(self._connection):
            return self.response.read()


def still_serves(proxy, image):
    assert ask(proxy, "GET", image.offer(proxy)).body == image.content


BIG = 64 * MIB


def test_host_killed_during_download(weak_host, proxy, image, tmp_path):
    big = Image(weak_host, tmp_path, bytes(BIG))
    download = Download(proxy, big.offer(proxy))
    weak_host.process.kill()
    with pytest.raises((http.client.IncompleteRead, OSError)):
        download.rest()
    still_serves(proxy, image)


def upload_slowly(proxy, path, meanwhile):
    """Upload, with something happening in the middle; return the status, None if the connection was cut."""
    with contextlib.closing(proxy.connect()) as connection:

        def body():
            for index in range(BIG // MIB):
                if index == 8:
                    meanwhile()
                yield bytes(MIB)

        # The answer may come before the end.
        with contextlib.suppress(OSError):
            connection.request("PUT", path, body(), {"Content-Length": str(BIG)})
        try:
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None


def test_host_killed_during_upload(weak_host, proxy, image, tmp_path):
    big = Image(weak_host, tmp_path, bytes(BIG))
    status = upload_slowly(proxy, big.offer(proxy), lambda: weak_host.stop(signal.SIGKILL))
    assert status is None or status >= 500
    still_serves(proxy, image)


def test_host_stopped_during_upload(weak_host, proxy, image, tmp_path):
    """The host lets it finish, or cuts it; what is acknowledged is there."""
    big = Image(weak_host, tmp_path, b"x" * BIG)
    weak_host.wait_log("Ready")
    status = upload_slowly(proxy, big.offer(proxy), lambda: weak_host.process.send_signal(signal.SIGTERM))
    assert status is None or status >= 400 or (status == 200 and big.content == bytes(BIG))
    still_serves(proxy, image)


def test_host_is_down(proxy, image, tmp_path):
    with run_host(tmp_path / "host") as host:
        gone = Image(host, tmp_path)
    path = gone.offer(proxy)
    for method, body in (("GET", None), ("OPTIONS", None), ("PUT", b"x"), ("PATCH", b'{"op": "flush"}')):
        assert ask(proxy, method, path, {}, body).status == 503
    assert ask(proxy, "POST", "/sessions", {"Authorization": gone.token()}).status == 503
    still_serves(proxy, image)


def test_ticket_removed_during_upload(weak_host, proxy, image, tmp_path):
    big = Image(weak_host, tmp_path, bytes(BIG))

    def remove():
        weak_host.control("DELETE", f"/tickets/{big.id}")

    status = upload_slowly(proxy, big.offer(proxy), remove)
    assert status is None or status >= 400
    still_serves(proxy, image)


STALLED = {
    "GET": ("GET", "", None),
    "PUT": ("PUT", "", bytes(SIZE)),
    "PATCH": ("PATCH", "", b'{"op": "flush"}'),
    "OPTIONS": ("OPTIONS", "", None),
    "extents": ("GET", "/extents", None),
}


@pytest.mark.slow
def test_stalled_host(weak_host, image, tmp_path):
    """Each client gets an error when the time is over, and others are served meanwhile."""
    statuses = {}

    def work(client, name, path):
        method, suffix, body = STALLED[name]
        statuses[name] = client.ask(method, path + suffix, {}, body).status

    # Short, but the other host has to answer in time.
    with run_proxy(tmp_path / "proxy", timeout=5) as proxy, contextlib.ExitStack() as stack:
        threads = []
        for name in STALLED:
            path = Image(weak_host, tmp_path).offer(proxy)
            client = stack.enter_context(contextlib.closing(Client(proxy)))
            if name != "OPTIONS":
                assert client.ask("OPTIONS", path).status == 200
            threads.append(threading.Thread(target=work, args=(client, name, path)))
        weak_host.process.send_signal(signal.SIGSTOP)
        stack.callback(revive, weak_host)
        for thread in threads:
            thread.start()
        still_serves(proxy, image)
        for thread in threads:
            thread.join()
    assert statuses == dict.fromkeys(STALLED, 504)


def test_checksum_of_a_stalled_host(weak_host, tmp_path):
    """It may take as long as it likes, until the ticket is removed."""
    with run_proxy(tmp_path / "proxy", timeout=1) as proxy, contextlib.closing(Client(proxy)) as client:
        path = Image(weak_host, tmp_path).offer(proxy)
        ticket = path.replace("images", "tickets")

        def remove():
            wait_until(lambda: json.loads(proxy.control("GET", ticket)[1])["active"])
            proxy.control("DELETE", ticket)

        assert client.ask("OPTIONS", path).status == 200
        weak_host.process.send_signal(signal.SIGSTOP)
        remover = threading.Thread(target=remove)
        remover.start()
        try:
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert client.ask("GET", f"{path}/checksum").status == 403
            remover.join()
        finally:
            revive(weak_host)


def test_restarted_host(proxy, tmp_path):
    """A connection to the proxy outlives the host, and works again when that has the ticket again."""
    folder = tmp_path / "host"
    folder.mkdir()
    with ports.reserved() as port, contextlib.closing(Client(proxy)) as client:
        text = HOST.format(local="false") + f"[remote]\nport = {port}\n"
        with daemon.running(folder, text) as host:
            image = Image(host, tmp_path)
            path = image.offer(proxy)
            assert client.ask("GET", path, {"Range": "bytes=0-9"}).status == 206
        assert client.ask("GET", path, {"Range": "bytes=0-9"}).status == 503
        with daemon.running(folder, text) as host:
            host.add_ticket(image.id, url=f"file://{image.path}", size=image.size)
            client.close()
            answer = client.ask("GET", path, {"Range": "bytes=0-9"})
            assert (answer.status, answer.body) == (206, image.content[:10])


def test_idle_connection_that_the_host_dropped(proxy, tmp_path):
    text = HOST.format(local="false") + "[daemon]\ninactivity_timeout = 1\n"
    (tmp_path / "host").mkdir()
    with daemon.running(tmp_path / "host", text) as host:
        image = Image(host, tmp_path)
        path = image.offer(proxy)
        with contextlib.closing(Client(proxy)) as client:
            assert client.ask("GET", path, {"Range": "bytes=0-9"}).status == 206
            # Removing the ticket closes what it used; adding it again opens the door for others.
            host.control("DELETE", f"/tickets/{image.id}")
            host.add_ticket(image.id, url=f"file://{image.path}", size=image.size)
            # The connection of the proxy is among those that it hangs up on.
            host.wait_log(r"CLOSE connection=\d+ client=(127|::1)")
            for _ in range(3):
                assert client.ask("GET", path, {"Range": "bytes=0-9"}).body == image.content[:10]


def test_put_is_acknowledged_only_after_the_flush(proxy):
    """A host that takes the data, but never flushes."""
    seen = []

    def script(wire):
        wire.options(size=100, features=["extents", "zero", "flush"])
        assert "flush=n" in wire.read_head()
        wire.read(100)
        wire.answer()
        seen.append(wire.read_head())
        wire.read(len('{"op": "flush"}'))
        wire.answer(500, b"No space\n")

    with ScriptedOrigin(script) as origin:
        path = "/images/" + proxy.add_ticket(url=origin.url, size=100).rpartition("/")[2]
        answer = ask(proxy, "PUT", path, {}, bytes(100))
    assert answer.status == 500
    assert seen[0].startswith("PATCH")


def count_sockets(process):
    """Return how many sockets a process has."""
    folder = f"/proc/{process.pid}/fd"
    count = 0
    for fd in os.listdir(folder):
        # It may have been closed meanwhile.
        with contextlib.suppress(OSError):
            count += os.readlink(f"{folder}/{fd}").startswith("socket:")
    return count


def test_nothing_leaks(weak_host, image, tmp_path):
    """Whatever happened, the connections to the hosts are gone when the clients are."""
    with run_proxy(tmp_path / "proxy") as proxy:
        before = count_sockets(proxy.process)
        still_serves(proxy, image)
        ask(proxy, "GET", f"/images/{image.id}", open_session(proxy, image.token()))
        big = Image(weak_host, tmp_path, bytes(BIG))
        download = Download(proxy, big.offer(proxy))
        upload_slowly(proxy, big.offer(proxy), lambda: weak_host.stop(signal.SIGKILL))
        with pytest.raises((http.client.IncompleteRead, OSError)):
            download.rest()
        assert ask(proxy, "GET", big.offer(proxy)).status == 503
        wait_until(lambda: count_sockets(proxy.process) <= before, lambda: count_sockets(proxy.process))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_flat(proxy, host, tmp_path):
    """A gigabyte up and down leaves the proxy as small as it was."""
    size = 1024 * MIB
    path = tmp_path / "big"
    with open(path, "wb") as f:
        f.truncate(size)
    url = host.add_ticket(url=f"file://{path}", size=size)
    proxied = "/images/" + proxy.add_ticket(url=url, size=size).rpartition("/")[2]

    def peak():
        with open(f"/proc/{proxy.process.pid}/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))

    with contextlib.closing(proxy.connect()) as connection:
        before = peak()
        connection.request("GET", proxied)
        response = connection.getresponse()
        buffer = bytearray(MIB)
        total = 0
        while count := response.readinto(buffer):
            total += count
        assert total == size
        piece = bytes(MIB)
        connection.request("PUT", proxied, (piece for _ in range(size // MIB)), {"Content-Length": str(size)})
        assert connection.getresponse().status == 200
        assert peak() - before < 64 * MIB


def test_engine_role(tmp_path, image):
    """The drop-in for the engine host, with files and ports of this test: TLS for clients, tickets over TCP."""
    made = certificates.certificate()
    text = (daemon.ROOT / "conf" / "50-engine.conf").read_text()
    for key, value in {"key_file": made.key_file, "cert_file": made.cert_file, "ca_file": made.ca_file}.items():
        text, count = re.subn(f"(?m)^{key} = /etc/pki/.*$", f"{key} = {value}", text)
        assert count
    text, count = re.subn("(?m)^port = 5432[34]$", "port = 0", text)
    assert count == 2
    with daemon.running(tmp_path, text) as proxy:
        assert set(proxy.addresses) == {"remote", "control"}
        port = int(proxy.addresses["control"].rpartition(":")[2])
        document = json.dumps(
            {"uuid": image.id, "size": SIZE, "ops": ["read"], "timeout": 300, "url": image.url}
        ).encode()
        # As the engine does it: no Host, nothing but the length.
        with socket.create_connection(("localhost", port), DEADLINE) as control:
            head = f"PUT /tickets/{image.id} HTTP/1.1\r\nContent-Length: {len(document)}\r\n\r\n"
            control.sendall(head.encode() + document)
            assert control.recv(1000).startswith(b"HTTP/1.1 200")
        assert ask(proxy, "GET", f"/images/{image.id}").body == image.content
