"""Hosts that die, stall, stop and come back while the proxy needs them, and what is left behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading

import pytest

pytest.importorskip("cryptography")

from fakes import ports
from fakes.origin import DiskOrigin, ScriptedOrigin
from fakes.waiting import wait_until
from real import daemon
from real.proxy import HOST, MIB, SIZE, Client, Image, ask, open_session, run_host, run_proxy


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


def test_ticket_removed_during_upload(proxy, image, tmp_path):
    with run_host(tmp_path / "host", text="[control]\nremove_grace = 0.1\n") as host:
        big = Image(host, tmp_path, bytes(BIG))

        def remove():
            host.control("DELETE", f"/tickets/{big.id}")

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

    # Short, but long enough for what comes before the host stalls.
    with run_proxy(tmp_path / "proxy", timeout=5) as proxy, contextlib.ExitStack() as stack:
        threads = []
        for name in STALLED:
            path = Image(weak_host, tmp_path).offer(proxy)
            client = stack.enter_context(contextlib.closing(Client(proxy)))
            if name != "OPTIONS":
                assert client.ask("OPTIONS", path).status == 200
            threads.append(threading.Thread(target=work, args=(client, name, path)))
        weak_host.freeze()
        stack.callback(revive, weak_host)
        for thread in threads:
            thread.start()
        # On a busy machine its host may not answer in time at once either.
        wait_until(lambda: ask(proxy, "GET", image.offer(proxy)).body == image.content)
        for thread in threads:
            thread.join()
    assert statuses == dict.fromkeys(STALLED, 504)


def test_checksum_of_a_stalled_host(weak_host, proxy, tmp_path):
    """The removal of the ticket ends it."""
    with contextlib.closing(Client(proxy)) as client:
        path = Image(weak_host, tmp_path).offer(proxy)
        ticket = path.replace("images", "tickets")

        def remove():
            wait_until(lambda: json.loads(proxy.control("GET", ticket)[1])["active"])
            proxy.control("DELETE", ticket)

        assert client.ask("OPTIONS", path).status == 200
        weak_host.freeze()
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


@pytest.mark.parametrize("status", [420, 450, 499, 520, 599])
def test_status_that_is_not_registered(proxy, status):
    with DiskOrigin(bytes(100)) as origin:
        origin.refusals["GET", ""] = (status, "Enhance your calm", {})
        path = "/images/" + proxy.add_ticket(url=origin.url, size=100).rpartition("/")[2]
        answer = ask(proxy, "GET", path)
    assert (answer.status, answer.body) == (status, b"Enhance your calm\n")


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
    """256 MiB up and down leave the proxy as small as it was."""
    size = 256 * MIB
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
