"""TLS in the kernel: every byte compared, whoever the client is, and what a peer does that is not data.

`/proc/net/tls_stat` tells that it was the kernel, and that it found no fault in what came.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from machine.service import (
    CERTIFICATE,
    DEADLINE,
    UNIT,
    Service,
    ask,
    output_of,
    run,
    slow_download,
    wait_until,
)

from ovirt_imageio.net import tls
from ovirt_imageio.net.stream import Stream

MiB = 1024**2
# An emulated processor encrypts a few MiB each second.
SIZE = MiB + 4096
DISKS = Path("/var/lib/disks")
STAT = Path("/proc/net/tls_stat")
BLACKLIST = Path("/etc/modprobe.d/kernel-tls-test.conf")

# Starts and lengths around the edges of blocks, records and what begins to be spliced.
RANGES = (
    *((0, 1), (1, 16383), (4095, 16385), (511, 131072), (65537, 262147), (65536, 262144), (1, SIZE - 2)),
    *((SIZE - 1, 1), (SIZE - 70001, 70001)),
)

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

# What is sent and received by the kernel, and found to be wrong.
COUNTED = ("TlsTxSw", "TlsRxSw", "TlsDecryptError")


def counts():
    numbers = dict(line.split() for line in STAT.read_text().splitlines())
    return [int(numbers[name]) for name in COUNTED]


@contextlib.contextmanager
def in_kernel(connections=1):
    """In this block so many connections, or more, are the kernel's, and none of them has a wrong byte."""
    before = counts()
    yield
    sends, receives, errors = (new - old for new, old in zip(counts(), before))
    assert sends >= connections, (sends, connections)
    assert receives >= connections, (receives, connections)
    assert errors == 0


@pytest.fixture
def module():
    output_of("modprobe", "tls")


@pytest.fixture
def kernel(module, service: Service):
    """The service, which may use the kernel, and is its own origin."""
    service.configure(f"[backend_http]\nca_file = {CERTIFICATE}\n")
    service.systemctl("start", UNIT)
    service.journal.wait("TLS is in the kernel")
    return service


@pytest.fixture(params=["file", "nbd"])
def disk(request, kernel):
    """A disk, its content, and the path of its image: a file, or what qemu-nbd has of a file."""
    path = DISKS / "kernel-tls.raw"
    path.write_bytes(os.urandom(SIZE))
    output_of("chown", "ovirtimg:", str(path))
    if request.param == "file":
        yield path, kernel.add_ticket(f"file://{path}", SIZE)
    else:
        with serving(path) as url:
            yield path, kernel.add_ticket(url, SIZE)
    path.unlink()


@contextlib.contextmanager
def serving(path):
    """Let qemu-nbd serve a file; return the URL."""
    sock = DISKS / "kernel-tls" / "nbd.sock"
    output_of("install", "--directory", "--owner=ovirtimg", str(sock.parent))
    command = ["runuser", "-u", "ovirtimg", "--", "qemu-nbd", "--persistent", "--shared=8", "--format=raw"]
    with subprocess.Popen([*command, f"--socket={sock}", str(path)]) as server:
        try:
            wait_until(lambda: sock.exists() or server.poll() is not None, "the socket of qemu-nbd")
            yield f"nbd:unix:{sock}"
        finally:
            run("pkill", "--parent", str(server.pid))
            server.wait(DEADLINE)
            sock.unlink(missing_ok=True)


def context(version="1.3", ciphers=""):
    found = ssl.create_default_context(cafile=str(CERTIFICATE))
    found.minimum_version = found.maximum_version = VERSIONS[version]
    if ciphers:
        found.set_ciphers(ciphers)
    return found


def connect(version="1.3", ciphers=""):
    return http.client.HTTPSConnection("localhost", 54322, context=context(version, ciphers), timeout=DEADLINE)


class PythonClient:
    """OpenSSL."""

    def __init__(self, version):
        self._connection = connect(version)

    def ask(self, method, path, body=None, **headers):
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        assert response.status in (200, 204, 206), (response.status, content)
        return content

    def close(self):
        self._connection.close()


class GnuTLSClient:
    """GnuTLS, by libcurl."""

    def __init__(self, version):
        import pycurl

        assert "GnuTLS" in pycurl.version
        self._curl = pycurl
        self._handle = pycurl.Curl()
        self._version = {"1.2": (1 << 16) * 6 | 6, "1.3": (1 << 16) * 7 | 7}[version]

    def ask(self, method, path, body=None, **headers):
        handle, curl = self._handle, self._curl
        handle.reset()
        received = bytearray()
        handle.setopt(curl.URL, f"https://localhost:54322{path}")
        handle.setopt(curl.CAINFO, str(CERTIFICATE))
        handle.setopt(curl.SSLVERSION, self._version)
        handle.setopt(curl.CUSTOMREQUEST, method)
        handle.setopt(curl.WRITEFUNCTION, received.extend)
        handle.setopt(curl.TIMEOUT, DEADLINE)
        handle.setopt(curl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
        if body is not None:
            handle.setopt(curl.UPLOAD, 1)
            handle.setopt(curl.INFILESIZE, len(body))
            left = memoryview(body)

            def read(size):
                nonlocal left
                piece, left = left[:size], left[size:]
                return bytes(piece)

            handle.setopt(curl.READFUNCTION, read)
        handle.perform()
        assert handle.getinfo(curl.RESPONSE_CODE) in (200, 204, 206), bytes(received)
        return bytes(received)

    def close(self):
        self._handle.close()


def ways(service):
    """Return who encrypted on the connections that are closed, as the log has it."""
    return re.findall(r"CLOSE connection=\d+ client=\S+ tls=(\S+)", service.journal.text())


def head_of(kind, start, length):
    last = start + length - 1
    return {"range": f"bytes={start}-{last}"} if kind == "GET" else {"content-range": f"bytes {start}-{last}/*"}


@pytest.mark.parametrize("make", [PythonClient, GnuTLSClient])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_each_byte(kernel, disk, version, make):
    path, url = disk
    content = bytearray(path.read_bytes())
    dice = random.Random(version)
    with in_kernel(), contextlib.closing(make(version)) as client:
        assert client.ask("GET", url) == content
        for start, length in RANGES:
            assert client.ask("GET", url, **head_of("GET", start, length)) == content[start : start + length]
        for start, length in RANGES:
            content[start : start + length] = part = dice.randbytes(length)
            client.ask("PUT", url, part, **head_of("PUT", start, length))
            assert path.read_bytes() == content
        content = dice.randbytes(SIZE)
        client.ask("PUT", url, content)
        assert client.ask("GET", url) == content
        client.ask("PATCH", url, b'{"op": "flush"}', **{"content-type": "application/json"})
    assert path.read_bytes() == content
    kernel.journal.wait("CLOSE connection=.* tls=kernel ")
    assert set(ways(kernel)) == {"kernel"}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_through_the_proxy(kernel, disk, version):
    """The client's connection, and both ends of the one to the origin."""
    path, url = disk
    proxied = kernel.add_ticket(f"https://localhost:54322{url}", SIZE)
    content = os.urandom(SIZE)
    with in_kernel(3), contextlib.closing(PythonClient(version)) as client:
        client.ask("PUT", proxied, content)
        assert client.ask("GET", proxied) == content
        for start, length in RANGES:
            assert client.ask("GET", proxied, **head_of("GET", start, length)) == content[start : start + length]
    assert path.read_bytes() == content


def test_several_connections_at_once(kernel, disk):
    path, url = disk
    content = path.read_bytes()
    with in_kernel(4):
        commands = []
        for number in range(4):
            curl = ["curl", "-sf", "--cacert", str(CERTIFICATE), f"https://localhost:54322{url}", "-o"]
            commands.append(subprocess.Popen([*curl, f"/tmp/copy-{number}"]))
        assert [command.wait(DEADLINE) for command in commands] == [0] * 4
    for number in range(4):
        copy = Path(f"/tmp/copy-{number}")
        assert copy.read_bytes() == content
        copy.unlink()


def test_bytes_stay_in_the_kernel(kernel, disk, tmp_path):
    """A download goes through a pipe: what it sends by itself are heads."""
    path, url = disk
    # A file for each thread: in one file, a call during which another thread makes one is told in two lines.
    command = ["strace", "-ff", "-e", "trace=splice", "-o", str(tmp_path / "thread"), "-p", str(kernel.pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            # It says so when it sees all threads.
            said = tracer.stderr.readline()
            assert "attached" in said, said
            assert ask(connect(), "GET", url) == path.read_bytes()
            # The client has the last bytes before the call that sent them is over.
            kernel.journal.wait("CLOSE connection=.* tls=kernel ")
        finally:
            tracer.terminate()
    traces = "".join(trace.read_text() for trace in tmp_path.glob("thread.*"))
    moved = sum(map(int, re.findall(r"splice\(.*\) += (\d+)$", traces, re.MULTILINE)))
    # Into the pipe, and out of it; the first and the last bytes of a file may take the other way.
    assert moved >= 2 * (SIZE - 256 * 1024), traces


def test_ovirt_img(kernel, disk, tmp_path):
    """The client library, which also speaks NBD through the connection."""
    path, url = disk
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(os.urandom(SIZE))
    for command in (("upload", str(source), "URL"), ("download", "--format", "raw", "URL", str(copy))):
        named = [f"https://localhost:54322{url}" if word == "URL" else word for word in command]
        with in_kernel():
            output_of("ovirt-img", *named, "--cafile", str(CERTIFICATE))
    assert path.read_bytes() == source.read_bytes() == copy.read_bytes()


# --- What is not data ------------------------------------------------------------------------------------------------


def s_client(version, *pieces):
    """Let openssl connect, and send the pieces, each after the answer to the one before; return what it printed."""
    command = ["openssl", "s_client", "-connect", "localhost:54322", f"-tls{version.replace('.', '_')}"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.STDOUT) as client:
        os.set_blocking(client.stdout.fileno(), False)
        said = bytearray()

        def says(text):
            said.extend(client.stdout.read() or b"")
            return text in said or client.poll() is not None

        wait_until(lambda: says(b"Verify return code"), "the handshake")
        for piece, answer in pieces:
            with contextlib.suppress(BrokenPipeError):
                client.stdin.write(piece)
                client.stdin.flush()
            wait_until(lambda answer=answer: says(answer), f"an answer to {piece!r}")
        with contextlib.suppress(BrokenPipeError):
            client.stdin.close()
        wait_until(lambda: client.poll() is not None, "the end of openssl")
        said.extend(client.stdout.read() or b"")
    return bytes(said)


OPTIONS = (b"OPTIONS /images/* HTTP/1.1\r\nhost: localhost\r\n\r\n", b"features")


@pytest.mark.parametrize("command", [b"k\n", b"K\n"])
def test_keys_that_change_end_the_connection(kernel, command):
    """The kernel keeps its keys: a peer with others is cut, before a byte of it is misread."""
    with in_kernel():
        said = s_client("1.3", OPTIONS, (command, b"KEYUPDATE"), (b"OPTIONS", b"closed"))
    assert b"KEYUPDATE" in said
    assert said.count(b"HTTP/1.1 200") == 1
    assert b"features" in ask(connect(), "OPTIONS", "/images/*")


def test_renegotiation_is_refused(kernel):
    with in_kernel():
        said = s_client("1.2", OPTIONS, (b"R\n", b"no renegotiation"))
    assert b"no renegotiation" in said
    assert b"features" in ask(connect("1.2"), "OPTIONS", "/images/*")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_end_is_told_and_heard(kernel, version):
    # A connection that is cut without a word raises.
    options = {"server_hostname": "localhost", "suppress_ragged_eofs": False}
    plain = socket.create_connection(("localhost", 54322), DEADLINE)
    with in_kernel(), context(version).wrap_socket(plain, **options) as end:
        end.sendall(OPTIONS[0].replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        said = bytearray()
        while piece := end.recv(65536):
            said += piece
        assert b"features" in said
    plain = socket.create_connection(("localhost", 54322), DEADLINE)
    # The last word is not answered, but its sender does not wait for the time-out of an idle connection.
    with context(version).wrap_socket(plain, **options) as end, contextlib.suppress(ssl.SSLEOFError):
        end.unwrap().close()


class Names:
    def late(self, is_sending, seconds):
        return TimeoutError()

    def broken(self, is_sending, reason):
        return ConnectionError(reason)

    def interrupted(self):
        return ConnectionError("interrupted")


@contextlib.contextmanager
def hostile(version):
    """A client whose kernel encrypts, too: it sends records of any type."""
    ours = tls.client_context(str(CERTIFICATE), kernel=True)
    ours.minimum_version = ours.maximum_version = VERSIONS[version]
    stream = Stream(socket.create_connection(("localhost", 54322)), DEADLINE, Names())
    with contextlib.closing(stream):
        stream.start_tls(ours, time.monotonic() + DEADLINE, server_hostname="localhost")
        assert stream.encryption == "kernel"

        def send(kind, record):
            stream.wire.sock.sendmsg([record], [(282, 1, bytes([kind]))])

        yield stream, send


ALERT, HANDSHAKE, DATA = 21, 22, 23

ENDS = {
    "fatal alert": [(ALERT, b"\x02\x14")],
    "half an alert": [(ALERT, b"\x02")],
    "unknown type": [(99, b"x")],
    "cipher spec": [(20, b"\x01")],
    "key update": [(HANDSHAKE, b"\x18\x00\x00\x01\x01")],
    "finished": [(HANDSHAKE, b"\x14\x00\x00\x20" + bytes(32))],
    "ticket for a server": [(HANDSHAKE, b"\x04\x00\x00\x01x")],
    "half a message": [(HANDSHAKE, b"\x18\x00")] * 3,
    "flood of alerts": [(ALERT, b"\x01\x5a")] * 1000,
    "end, then data": [(ALERT, b"\x01\x00"), (DATA, OPTIONS[0])],
}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("name", ENDS)
def test_hostile_client(kernel, version, name):
    """It is cut, or its end is an end; nothing that it sent is taken for a request, and nobody else notices."""
    with in_kernel(), hostile(version) as (stream, send):
        stream.send(OPTIONS[0])
        assert b"features" in stream.receive()
        with contextlib.suppress(OSError):
            for kind, record in ENDS[name]:
                send(kind, record)
            send(DATA, OPTIONS[0])
        said = b""
        with contextlib.suppress(OSError):
            while piece := stream.receive():
                said += piece
        assert b"HTTP/1.1 200" not in said
    assert b"features" in ask(connect(version), "OPTIONS", "/images/*")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_what_may_come_between_data(kernel, disk, version):
    """A hello asks for new keys in TLS 1.2, and alerts that warn are heard; the upload goes on."""
    path, url = disk
    content = os.urandom(SIZE)
    between = (ALERT, b"\x01\x5a")
    with in_kernel(), hostile(version) as (stream, send):
        stream.send(b"PUT %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (url.encode(), SIZE))
        for start in range(0, SIZE, 100_003):
            send(*between)
            if version == "1.2":
                send(HANDSHAKE, b"\x01\x00\x00\x05hello")
            stream.send(content[start : start + 100_003])
        assert stream.receive().startswith(b"HTTP/1.1 200")
    assert path.read_bytes() == content


def test_empty_records_are_not_the_end(kernel, disk):
    path, url = disk
    content = os.urandom(SIZE)
    with in_kernel(), hostile("1.3") as (stream, send):
        stream.send(b"PUT %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (url.encode(), SIZE))
        for start in range(0, SIZE, 500_009):
            send(DATA, b"")
            stream.send(content[start : start + 500_009])
        assert stream.receive().startswith(b"HTTP/1.1 200")
    assert path.read_bytes() == content


# --- Peers that stop, and tickets that go ----------------------------------------------------------------------------

LARGE = 32 * MiB


@pytest.fixture(params=["file", "nbd"])
def large(request, kernel):
    path = DISKS / "kernel-tls-large.raw"
    path.write_bytes(os.urandom(MiB) * (LARGE // MiB))
    output_of("chown", "ovirtimg:", str(path))
    if request.param == "file":
        yield path, f"file://{path}"
    else:
        with serving(path) as url:
            yield path, url
    path.unlink()


def test_client_that_takes_nothing(kernel, large):
    path, url = large
    image = kernel.add_ticket(url, LARGE, inactivity_timeout=3)
    with in_kernel(), slow_download(connect(), image) as response:
        kernel.journal.wait("took nothing for 3 seconds|CLOSE connection=.* tls=kernel")
        with contextlib.suppress(http.client.HTTPException, OSError):
            assert len(response.read()) < LARGE
    assert ask(connect(), "GET", image, range="bytes=0-99") == path.read_bytes()[:100]


def test_client_that_sends_nothing_more(kernel, large):
    _, url = large
    image = kernel.add_ticket(url, LARGE, inactivity_timeout=3)
    with in_kernel(), contextlib.closing(connect()) as connection:
        connection.putrequest("PUT", image)
        connection.putheader("content-length", str(LARGE))
        connection.endheaders(b"x" * 100_001)
        assert connection.getresponse().status == 408


def test_ticket_is_removed_amid_a_download(kernel, large):
    _, url = large
    image = kernel.add_ticket(url, LARGE)
    with in_kernel(), slow_download(connect(), image) as response:
        first = response.read(100_000)
        assert len(first) == 100_000
        status, _ = kernel.control("DELETE", image.replace("images", "tickets"))
        assert status in (200, 204)
        with contextlib.suppress(http.client.HTTPException, OSError):
            assert len(response.read()) < LARGE - len(first)
    wait_until(lambda: ways(kernel), "the end of the connection")


def test_slow_client_gets_all(kernel, large):
    path, url = large
    image = kernel.add_ticket(url, LARGE)
    received = bytearray()
    with in_kernel(), slow_download(connect(), image) as response:
        while piece := response.read(3 * MiB + 1):
            received += piece
            time.sleep(0.2)
    assert received == path.read_bytes()


# --- Where the kernel cannot -----------------------------------------------------------------------------------------


@pytest.fixture
def without_module(service):
    service.stop()
    output_of("modprobe", "--remove", "tls")
    yield service
    service.stop()
    output_of("modprobe", "tls")


def exchange(service, path=DISKS / "kernel-tls-other.raw", **options):
    """Write a disk and read it, and return who encrypted."""
    path.write_bytes(bytes(SIZE))
    output_of("chown", "ovirtimg:", str(path))
    image = service.add_ticket(f"file://{path}", SIZE)
    content = os.urandom(SIZE)
    known = len(ways(service))
    ask(connect(**options), "PUT", image, content)
    assert ask(connect(**options), "GET", image) == content == path.read_bytes()
    path.unlink()
    wait_until(lambda: len(ways(service)) == known + 2, "the end of both connections")
    return set(ways(service)[known:])


def test_without_the_module(without_module):
    """The daemon does not load it, and says that it is not there."""
    service = without_module
    service.systemctl("start", UNIT)
    service.journal.wait("TLS is not in the kernel: the module tls is not loaded")
    assert exchange(service) == {"memory"}
    # It is looked for again with the certificates.
    output_of("modprobe", "tls")
    service.systemctl("reload", UNIT)
    service.journal.wait("Reloaded")
    assert exchange(service) == {"kernel"}


def test_module_that_is_removed(kernel):
    assert exchange(kernel) == {"kernel"}
    wait_until(lambda: run("modprobe", "--remove", "tls").returncode == 0, "a module that nobody uses")
    assert exchange(kernel) == {"memory"}
    output_of("modprobe", "tls")
    assert exchange(kernel) == {"kernel"}


def test_off(module, service):
    service.configure("[tls]\nkernel = off\n")
    before = counts()
    service.systemctl("start", UNIT)
    service.journal.wait(r"TLS is not in the kernel: \[tls\] kernel is off")
    assert exchange(service) == {"memory"}
    assert counts() == before


@pytest.fixture
def no_chacha(kernel):
    """A kernel without the cipher, as some are; it has not used it since it was started."""
    BLACKLIST.write_text("".join(f"install {name} /bin/false\n" for name in ("chacha20poly1305", "chacha20_generic")))
    run("modprobe", "--remove", "chacha20poly1305")
    yield kernel
    BLACKLIST.unlink()


def test_cipher_that_the_kernel_does_not_have(no_chacha):
    """OpenSSL goes on, and connections with another cipher are the kernel's as before."""
    chacha = {"version": "1.2", "ciphers": "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-CHACHA20-POLY1305"}
    assert exchange(no_chacha, **chacha) == {"openssl"}
    assert exchange(no_chacha) == {"kernel"}
    BLACKLIST.write_text("")
    assert exchange(no_chacha, **chacha) == {"kernel"}


def test_metrics_tell(kernel):
    exchange(kernel)
    status, text = kernel.control("GET", "/metrics")
    assert status == 200
    assert re.search(rb'imageio_tls_connections_total\{encryption="kernel"\} [1-9]', text), text
