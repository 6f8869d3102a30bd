"""Through a proxy of the network: which one, and what it may answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from fakes import ports
from fakes.origin import DiskOrigin
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.origin.image import Image
from ovirt_imageio.origin.server import Approach
from ovirt_imageio.origin.tunnel import choose, open_tunnel

PROXY = {"https_proxy": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("host", "environ", "expected"),
    [
        ("host", {}, None),
        ("host", PROXY, ("proxy", 3128)),
        ("host", {"HTTPS_PROXY": "proxy"}, ("proxy", 8080)),
        ("host", {"ALL_PROXY": "http://user@proxy:1"}, ("proxy", 1)),
        ("host", {"https_proxy": "", "ALL_PROXY": "http://other:2"}, ("other", 2)),
        ("host", {"http_proxy": "http://proxy:3128"}, None),
        ("host", {"https_proxy": "http://proxy:none"}, None),
        ("host", {"https_proxy": "http://[::1"}, None),
        ("host", {**PROXY, "no_proxy": "*"}, None),
        ("a.lab.example", {**PROXY, "NO_PROXY": "x, .lab.example"}, None),
        ("A.Lab.Example", {**PROXY, "no_proxy": "lab.example"}, None),
        ("collab.example", {**PROXY, "no_proxy": "lab.example"}, ("proxy", 3128)),
        ("localhost", PROXY, None),
        ("127.0.0.1", PROXY, None),
        ("::1", PROXY, None),
    ],
)
def test_choose(host, environ, expected):
    assert choose(host, environ) == expected


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[tuple[socket.socket, list[bytes]]]:
    """Give a socket whose other end reads a request and answers so."""
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []

    def answer_once() -> None:
        heard.append(theirs.recv(1000))
        with contextlib.suppress(OSError):
            theirs.sendall(answer)
        theirs.close()

    thread = threading.Thread(target=answer_once)
    thread.start()
    with ours:
        yield ours, heard
    thread.join()


def test_what_follows_the_answer_is_left():
    with answering(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nTLS") as (sock, heard):
        open_tunnel(sock, "2001:db8::1", 54322, DEADLINE)
        assert sock.recv(10) == b"TLS"
        assert heard == [b"CONNECT [2001:db8::1]:54322 HTTP/1.1\r\nHost: [2001:db8::1]:54322\r\n\r\n"]


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"SSH-2.0-x\r\n\r\n", "refuses"),
        (b"", "does not answer"),
        (b"HTTP/1.1 200 OK\r\n", "does not answer"),
        (b"x" * 20_000, "does not answer"),
    ],
)
def test_proxy_that_will_not(answer, match):
    with answering(answer) as (sock, _), pytest.raises(OSError, match=match):
        open_tunnel(sock, "host", 1, DEADLINE)


def test_proxy_that_trickles():
    def trickle() -> None:
        with contextlib.suppress(OSError):
            while not is_over.wait(0.01):
                theirs.sendall(b"x")

    ours, theirs = socket.socketpair()
    is_over = threading.Event()
    thread = threading.Thread(target=trickle)
    thread.start()
    with ours, theirs:
        with pytest.raises((TimeoutError, socket.timeout)):
            open_tunnel(ours, "host", 1, 0.2)
        is_over.set()
        thread.join()


class NetworkProxy:
    """A proxy of the network for one connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.asked = b""
        self._threads = [threading.Thread(target=self._run)]

    def __enter__(self) -> NetworkProxy:
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        self.asked = client.recv(1000)
        host, _, port = self.asked.split()[1].decode().rpartition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with client, server:
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_backend_through_a_proxy_verifies_the_server_itself():
    made = certificates.certificate()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert_file, made.key_file)
    with DiskOrigin(b"data", context=context) as origin:
        # It is on this host, but not to be looked for here.
        origin.options["unix_socket"] = "\0nobody"
        with NetworkProxy() as proxy:
            trust = ssl.create_default_context(cafile=made.ca_file)
            with contextlib.closing(Image(origin.url, Approach(context=trust, tunnel=proxy.address))) as image:
                view = memoryview(bytearray(4))
                image.readinto(0, view)
                assert bytes(view) == b"data"
        assert proxy.asked.startswith(f"CONNECT 127.0.0.1:{origin.port} ".encode())


def test_unreachable_proxy_is_told():
    with ports.reserved() as port, pytest.raises(errors.BackendUnavailable, match="reached"):
        Image("https://example.org/images/x", Approach(tunnel=("127.0.0.1", port)))
