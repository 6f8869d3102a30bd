"""A restart that nobody notices: no connection is refused, no ticket lost, no byte wrong."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import threading
import time
from pathlib import Path

import pytest
from machine.service import UNIT, output_of, run, wait_until

# In emulation a restart takes some seconds, on a busy machine half a minute: there are as many as the time allows.
RESTARTS = 100
SECONDS = 90
LONG_SECONDS = 2000
AT_LEAST = 3

TRANSFERS = 40
SIZE = 256 * 1024

# How a client sees that a restart cut its request, which took longer than the service waits.
CUT = (http.client.HTTPException, ConnectionResetError, BrokenPipeError, ssl.SSLError)


class Client(threading.Thread):
    """Writes and reads its own disk over and over; what was cut it tries again. Anything else is a failure.

    Threads: `cycles` and `cuts` are read by others.
    """

    def __init__(self, service, folder, number, is_over):
        super().__init__(name=f"client {number}")
        disk = folder / f"disk-{number}"
        disk.write_bytes(bytes(SIZE))
        output_of("chown", "ovirtimg:", str(disk))
        self._path = service.add_ticket(f"file://{disk}", SIZE)
        # TLS takes most of the time of an emulated processor.
        self._connect = service.connect if number % 10 == 0 else service.connect_local
        self._is_over = is_over
        self.cycles = self.cuts = 0
        self.failure = None

    def run(self):
        try:
            while not self._is_over.is_set():
                data = os.urandom(SIZE)
                self.ask("PUT", data)
                assert self.ask("GET") == data, "other bytes"
                self.cycles += 1
        except Exception as error:
            self.failure = error

    def ask(self, method, body=None):
        while True:
            # ConnectionRefusedError is none of CUT.
            with contextlib.closing(self._connect()) as connection:
                try:
                    connection.request(method, self._path, body)
                    response = connection.getresponse()
                    content = response.read()
                except CUT:
                    self.cuts += 1
                    continue
            # 503: it is stopping, come again.
            if response.status != 503:
                assert response.status == 200, (method, response.status, content)
                return content


@pytest.mark.parametrize("seconds", [SECONDS, pytest.param(LONG_SECONDS, marks=pytest.mark.long)])
@pytest.mark.timeout(LONG_SECONDS + 600)
def test_restarts_under_transfers(running, seconds, capsys):
    folder = Path("/run/restart")
    folder.mkdir(exist_ok=True)
    is_over = threading.Event()
    clients = [Client(running, folder, number, is_over) for number in range(TRANSFERS)]
    end, done = time.monotonic() + seconds, 0
    for client in clients:
        client.start()
    try:
        while done < RESTARTS and (done < AT_LEAST or time.monotonic() < end):
            before = [client.cycles for client in clients]
            output_of("systemctl", "restart", UNIT)
            done += 1

            def all_go_on(before=before):
                return [c.failure for c in clients if c.failure] or all(
                    client.cycles > cycles for client, cycles in zip(clients, before)
                )

            wait_until(all_go_on, "each client has moved its disk after the restart")
            if any(client.failure for client in clients):
                break
    finally:
        is_over.set()
        for client in clients:
            client.join()
    cycles, cuts = (sum(getattr(client, name) for client in clients) for name in ("cycles", "cuts"))
    with capsys.disabled():
        print(f"\n{done} restarts, {TRANSFERS} clients, {cycles} disks written and read, {cuts} requests cut")
    assert [client.failure for client in clients if client.failure] == []


def test_curl_and_our_client_finish(running):
    """Programs that try again do not notice."""
    disk = Path("/run/disk.raw")
    disk.write_bytes(bytes(4 * SIZE))
    output_of("chown", "ovirtimg:", str(disk))
    source, copy = Path("/run/source.raw"), Path("/run/copy.raw")
    source.write_bytes(os.urandom(4 * SIZE))
    url = "https://localhost:54322" + running.add_ticket(f"file://{disk}", 4 * SIZE)
    authority = "/etc/ovirt-imageio/pki/cert.pem"
    restart = threading.Thread(target=lambda: output_of("systemctl", "restart", UNIT))
    restart.start()
    curl = ["curl", "--silent", "--show-error", "--fail", "--cacert", authority, "--retry", "9", "--retry-all-errors"]
    output_of(*curl, "--upload-file", str(source), url)
    output_of(*curl, "--output", str(copy), url)
    restart.join()
    assert copy.read_bytes() == source.read_bytes()
    copy.unlink()
    restart = threading.Thread(target=lambda: output_of("systemctl", "restart", UNIT))
    restart.start()
    done = run("ovirt-img", "download", "-f", "raw", "--cafile", authority, url, str(copy))
    restart.join()
    assert done.returncode == 0, done.stdout
    assert copy.read_bytes() == source.read_bytes()


def test_stop_and_crash_forget_tickets(running):
    """Only a restart keeps them."""
    disk = Path("/run/disk.raw")
    disk.write_bytes(bytes(SIZE))
    for command in (("stop",), ("kill", "--signal=KILL")):
        path = running.add_ticket(f"file://{disk}", SIZE)
        before = running.pid
        run("systemctl", *command, UNIT)
        if command == ("stop",):
            running.systemctl("start", UNIT)
        wait_until(lambda before=before: running.pid not in (0, before), "another daemon")
        wait_until(lambda: running.show("SubState") == "running", "a daemon that serves")
        with contextlib.closing(running.connect_local()) as connection:
            connection.request("GET", path)
            assert connection.getresponse().status == 403


def test_upgrade(running):
    """The package restarts the service, and the tickets are there afterwards."""
    disk = Path("/run/disk.raw")
    disk.write_bytes(bytes(SIZE))
    output_of("chown", "ovirtimg:", str(disk))
    path = running.add_ticket(f"file://{disk}", SIZE)
    before = running.pid
    (package,) = Path("/imageio/build/deb").glob("ovirt-imageio-daemon_*.deb")
    output_of("dpkg", "--install", str(package), timeout=600)
    assert running.pid != before
    with contextlib.closing(running.connect_local()) as connection:
        connection.request("GET", path)
        assert connection.getresponse().status == 200
