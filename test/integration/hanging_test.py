"""Servers of disks that hang before a disk is open: the removal of a ticket does not wait for them."""

from __future__ import annotations

import contextlib
import http.client
import os
import threading

import pytest
from fakes import silent
from fakes.nbdpeer import Peer
from fakes.waiting import DEADLINE, wait_until
from real import daemon

from ovirt_imageio.nbd.wire import Option, Reply

# Longer than any test waits: nothing here ends because its time is over.
PATIENCE = """\
[backend_nbd]
connect_timeout = 1000
reply_timeout = 1000
[backend_http]
connect_timeout = 1000
read_timeout = 1000
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon"), PATIENCE) as running:
        yield running


@contextlib.contextmanager
def nbd_greeting(folder):
    with silent.unix(f"{folder}/nbd") as server:
        yield f"nbd:unix:{folder}/nbd", server.wait_for_client


@contextlib.contextmanager
def nbd_queue(folder):
    with silent.unix(f"{folder}/nbd", is_full=True) as server:
        yield f"nbd:unix:{folder}/nbd", server.wait_for_client


@contextlib.contextmanager
def nbd_tcp(folder):
    with silent.tcp(is_full=True) as server:
        yield f"nbd://127.0.0.1:{server.port}", server.wait_for_client


@contextlib.contextmanager
def nbd_options(folder):
    has_begun = threading.Event()

    def script(call):
        call.greet()
        call.option()
        has_begun.set()
        call.wait_for_hangup()

    with Peer(script) as peer:
        yield peer.url, lambda: has_begun.wait(DEADLINE)


@contextlib.contextmanager
def nbd_tls(folder):
    has_begun = threading.Event()

    def script(call):
        call.greet()
        call.option()
        call.reply(Option.STARTTLS, Reply.ACK)
        has_begun.set()
        call.wait_for_hangup()

    with Peer(script) as peer:
        yield peer.url.replace("nbd:unix:", "nbds+unix:///?socket="), lambda: has_begun.wait(DEADLINE)


@contextlib.contextmanager
def origin_tcp(folder):
    with silent.tcp(is_full=True) as server:
        yield f"http://127.0.0.1:{server.port}/images/x", server.wait_for_client


@contextlib.contextmanager
def origin_tls(folder):
    with silent.tcp() as server:
        yield f"https://127.0.0.1:{server.port}/images/x", server.wait_for_client


@contextlib.contextmanager
def origin_options(folder):
    with silent.tcp() as server:
        yield f"http://127.0.0.1:{server.port}/images/x", server.wait_for_client


HANGING = [nbd_greeting, nbd_queue, nbd_tcp, nbd_options, nbd_tls, origin_tcp, origin_tls, origin_options]


class Client(threading.Thread):
    """Asks for an image, in a thread; `join` makes `answer` known, its status and its text."""

    def __init__(self, running, ticket_id):
        super().__init__()
        self._connection = running.connect()
        self._path = f"/images/{ticket_id}"
        self.answer = None

    def run(self):
        # A daemon that stops may answer no more.
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(self._connection) as connection,
        ):
            connection.request("GET", self._path)
            response = connection.getresponse()
            self.answer = response.status, response.read()


def count_files(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def count_threads(process):
    return len(os.listdir(f"/proc/{process.pid}/task"))


@contextlib.contextmanager
def nothing_leaks(running):
    """Every descriptor and every thread is gone in the end."""
    before = count_files(running.process), count_threads(running.process)
    yield

    def now():
        return count_files(running.process), count_threads(running.process)

    wait_until(lambda: now() <= before, now)


@pytest.mark.parametrize("hanging", HANGING)
def test_ticket_is_removed(running, tmp_path, hanging):
    with nothing_leaks(running), hanging(tmp_path) as (url, wait_for_client):
        ticket_id = running.add_ticket(url=url, size=1000).rpartition("/")[2]
        client = Client(running, ticket_id)
        client.start()
        wait_for_client()
        assert running.control("DELETE", f"/tickets/{ticket_id}")[0] == 204
        client.join()
        status, text = client.answer
        assert status == 403
        assert b"No such ticket" in text


@pytest.mark.parametrize("hanging", [nbd_greeting, origin_options])
def test_ticket_expires(running, tmp_path, hanging):
    with nothing_leaks(running), hanging(tmp_path) as (url, _):
        ticket_id = running.add_ticket(url=url, size=1000, timeout=1).rpartition("/")[2]
        client = Client(running, ticket_id)
        client.start()
        client.join()
        assert client.answer[0] == 403


def test_daemon_stops(tmp_path):
    text = f"{PATIENCE}[daemon]\ndrain_timeout = 1\n"
    with silent.unix(f"{tmp_path}/nbd") as server, daemon.running(tmp_path, text) as running:
        client = Client(running, running.add_ticket(url=f"nbd:unix:{tmp_path}/nbd", size=1000).rpartition("/")[2])
        client.start()
        server.wait_for_client()
        assert running.stop() == 0
        client.join()
