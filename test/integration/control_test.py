"""Tickets in the real daemon: stalled clients, removal while busy, crashes, many clients, and ovirt-imageioctl."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid

import pytest
from fakes.waiting import DEADLINE, wait_until
from real import daemon

SIZE = 64 * 1024**2


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def running(tmp_path):
    with daemon.running(tmp_path) as running:
        yield running


def info(running, ticket_id):
    status, body = running.control("GET", f"/tickets/{ticket_id}")
    assert status == 200, body
    return json.loads(body)


def wait_state(running, ticket_id, condition):
    """Wait with the daemon's own means until the state of a ticket is as it should be; return it."""
    state = info(running, ticket_id)

    def is_so():
        nonlocal state
        if condition(state):
            return True
        status, body = running.control("GET", f"/tickets/{ticket_id}?wait=1&since={state['version']}")
        assert status == 200, body
        state = json.loads(body)
        return condition(state)

    wait_until(is_so, lambda: state)
    return state


@contextlib.contextmanager
def raw(running, tls=True):
    """Yield a socket that is connected to the images API."""
    if not tls:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(running.local_socket)
            yield sock
        return
    plain = socket.create_connection(("localhost", running.port), DEADLINE)
    with plain, running.tls.wrap_socket(plain, server_hostname="localhost") as sock:
        yield sock


def read_to_end(sock):
    """Read until the other side closes, however it does that; return how much came."""
    count = 0
    with contextlib.suppress(OSError):
        while data := sock.recv(1024**2):
            count += len(data)
    return count


def descriptors(running):
    """Return what the daemon has open."""
    folder = f"/proc/{running.process.pid}/fd"
    found = []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"{folder}/{name}"))
    return found


def wait_closed(running, path):
    """Wait until the daemon has closed a file: soon after the last answer, not before it."""
    wait_until(lambda: str(path) not in descriptors(running), lambda: descriptors(running))


STALLED = [("GET", True), ("GET", False), ("PUT", True), ("PUT", False)]


@pytest.mark.slow
def test_stalled_clients_are_cut_when_their_tickets_expire(running, image):
    with contextlib.ExitStack() as stack:
        socks = {}
        for method, tls in STALLED:
            # The connection may stand still for much longer than anything waits here.
            url = running.add_ticket(url=f"file://{image}", size=SIZE, inactivity_timeout=300)
            ticket_id = url.rpartition("/")[2]
            sock = socks[ticket_id] = stack.enter_context(raw(running, tls))
            length = f"Content-Length: {SIZE}\r\n" if method == "PUT" else ""
            sock.sendall(f"{method} /images/{ticket_id} HTTP/1.1\r\n{length}\r\n".encode())
            wait_state(running, ticket_id, lambda state: state["active"])

        def has_ended(ticket_id):
            state = info(running, ticket_id)
            # What was still on its way to fill the buffers made it live longer.
            if state["active"] and state["remaining"] > 1:
                assert running.control("PATCH", f"/tickets/{ticket_id}", {"timeout": 1})[0] == 200
            return not state["active"]

        # Nothing is sent, nothing is read.
        wait_until(lambda: all([has_ended(ticket_id) for ticket_id in socks]))
        for ticket_id, sock in socks.items():
            state = info(running, ticket_id)
            assert "stood still until its ticket expired" in state["last_error"]
            assert state["remaining"] == 0
            assert read_to_end(sock) < SIZE
    wait_closed(running, image)
    assert running.log().count("CUT transfer=") == len(STALLED)


def test_removal_cuts_a_client_that_stopped_reading(running, image):
    ticket_id = str(uuid.uuid4())
    running.add_ticket(ticket_id, url=f"file://{image}", size=SIZE)
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(raw(running)) for _ in range(8)]
        for sock in socks:
            sock.sendall(f"GET /images/{ticket_id} HTTP/1.1\r\n\r\n".encode())
        wait_state(running, ticket_id, lambda state: state["connections"] == 8 and state["active"])
        assert running.control("DELETE", f"/tickets/{ticket_id}")[0] == 204
        # The manager that asked for the removal may take the disk away now.
        assert str(image) not in descriptors(running)
        assert all(read_to_end(sock) < SIZE for sock in socks)


def test_two_removals_at_once(tmp_path, image):
    ticket_id = str(uuid.uuid4())
    statuses = []
    hasty = "[control]\nremove_grace = 0.1\n"
    with daemon.running(tmp_path, hasty) as running, raw(running) as sock:
        running.add_ticket(ticket_id, url=f"file://{image}", size=SIZE)
        sock.sendall(f"PUT /images/{ticket_id} HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        wait_state(running, ticket_id, lambda state: state["active"])
        threads = [
            threading.Thread(target=lambda: statuses.append(running.control("DELETE", f"/tickets/{ticket_id}")[0]))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert statuses == [204, 204]


def test_removed_between_the_last_byte_and_the_answer(tmp_path, image):
    """Some clients finalize a transfer before they read the answer to their upload."""
    ticket_id = str(uuid.uuid4())
    # What is on its way gets there within two seconds on any machine, but perhaps not on one that is busy with tests.
    patient = f"[control]\nremove_grace = {DEADLINE}\n"
    with daemon.running(tmp_path, patient) as running, raw(running) as sock:
        running.add_ticket(ticket_id, url=f"file://{image}", size=SIZE)
        sock.sendall(f"PUT /images/{ticket_id} HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        sock.sendall(b"x" * SIZE)
        assert running.control("DELETE", f"/tickets/{ticket_id}")[0] == 204
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
    assert image.read_bytes() == b"x" * SIZE


def test_progress_of_an_upload(running, image):
    ticket_id = str(uuid.uuid4())
    running.add_ticket(ticket_id, url=f"file://{image}", size=SIZE, ops=["write"])
    mib = 1024**2
    with raw(running) as sock:
        sock.sendall(f"PUT /images/{ticket_id} HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        for sent in range(4, 17, 4):
            sock.sendall(b"x" * 4 * mib)
            state = wait_state(running, ticket_id, lambda state, sent=sent: state["transferred"] >= (sent - 3) * mib)
            assert state["transferred"] <= sent * mib
            assert state["idle_time"] == 0
            assert state["active"]
    state = wait_state(running, ticket_id, lambda state: not state["active"])
    assert 13 * mib <= state["transferred"] <= 16 * mib


def test_killed_and_restarted(tmp_path, image):
    ticket_id = str(uuid.uuid4())
    with daemon.running(tmp_path) as first:
        first.add_ticket(ticket_id, url=f"file://{image}", size=SIZE)
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    with daemon.running(tmp_path) as second:
        assert second.control("GET", f"/tickets/{ticket_id}")[0] == 404
        with contextlib.closing(second.connect()) as connection:
            connection.request("GET", f"/images/{ticket_id}")
            response = connection.getresponse()
            assert (response.status, b"No such ticket" in response.read()) == (403, True)
    assert not list(tmp_path.glob("*.sock"))


def test_connection_line(running, image):
    ticket_id = str(uuid.uuid4())
    running.add_ticket(ticket_id, url=f"file://{image}", size=SIZE)
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", f"/images/{ticket_id}", headers={"Range": "bytes=0-1048575"})
        assert len(connection.getresponse().read()) == 1024**2
    pattern = (
        r"INFO .*CLOSE connection=\d+ client=\S+ tls=\S+ "
        r"\[connection 1 ops, \d+\.\d{6} s\] \[dispatch 1 ops, \d+\.\d{6} s\] "
        r".*\[read 1 ops, \d+\.\d{6} s, 1\.00 MiB, \S+ [KMG]iB/s\]"
    )
    running.wait_log(pattern)
    assert ticket_id not in running.log()


def test_metrics(running, image):
    ticket_id = str(uuid.uuid4())
    running.add_ticket(ticket_id, url=f"file://{image}", size=SIZE, ops=["read"])
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", f"/images/{ticket_id}")
        connection.getresponse().read()
        wait_state(running, ticket_id, lambda state: state["transferred"] == SIZE)
        status, body = running.control("GET", "/metrics")
    text = body.decode()
    assert status == 200
    assert f'imageio_transfer_bytes_total{{backend="file",direction="out"}} {SIZE}\n' in text
    assert ticket_id[:18] not in text


@pytest.mark.slow
def test_many_clients_leave_nothing_behind(running, image):
    before = len(descriptors(running))
    # Each does the same amount: how long that takes is for the machine to say.
    rounds = 30
    failures = []

    def work(number):
        try:
            for _ in range(rounds):
                ticket_id = f"shared-ticket-{number % 4}"
                running.add_ticket(ticket_id, url=f"file://{image}", size=SIZE)
                with raw(running, tls=False) as sock:
                    sock.sendall(f"GET /images/{ticket_id} HTTP/1.1\r\nRange: bytes=0-9\r\n\r\n".encode())
                    # Another thread may remove or replace the ticket at any moment: then there may be no answer.
                    with contextlib.suppress(ConnectionError):
                        assert re.match(rb"(HTTP/1.1 (206|403) .*|$)", sock.recv(4096))
                assert running.control("DELETE", f"/tickets/{ticket_id}")[0] == 204
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert running.control("DELETE", "/tickets/")[0] == 204
    wait_closed(running, image)
    wait_until(lambda: len(descriptors(running)) <= before, lambda: descriptors(running))
    assert "Traceback" not in running.log()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor only")
def test_small_requests_share_a_processor(running, image):
    running.add_ticket("shared-ticket", url=f"file://{image}", size=SIZE)

    def ask(connection, headers):
        connection.request("GET", "/images/shared-ticket", headers=headers)
        return len(connection.getresponse().read())

    def bound():
        """On how many processors each thread may run that may not run on all of them."""
        places = []
        for thread in os.listdir(f"/proc/{running.process.pid}/task"):
            # Those of the control service come and go.
            with contextlib.suppress(ProcessLookupError):
                places.append(os.sched_getaffinity(int(thread)))
        return [len(place) for place in places if place != os.sched_getaffinity(0)]

    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(running.connect())) for _ in range(6)]

        def is_crowded():
            for connection in connections:
                assert ask(connection, {"range": "bytes=0-4095"}) == 4096
            # One of them may look for a better processor just now.
            return len(bound()) >= 5

        wait_until(is_crowded, bound)
        assert set(bound()) == {1}
        # Much takes all processors.
        for connection in connections:
            assert ask(connection, {}) == SIZE
        assert bound() == []


def test_program(running, image, tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(daemon.ROOT)}

    def ctl(*arguments, data=None):
        program = daemon.ROOT / "daemon" / "ovirt-imageioctl"
        command = [sys.executable, program, "-c", str(tmp_path / "etc"), *arguments]
        done = subprocess.run(command, input=data, capture_output=True, text=True, timeout=60, env=environ)
        return done.returncode, done.stdout, done.stderr

    ticket = {"uuid": str(uuid.uuid4()), "size": SIZE, "url": f"file://{image}", "ops": ["read"], "timeout": 300}
    assert ctl("add-ticket", "-", data=json.dumps(ticket)) == (0, "", "")
    code, output, _ = ctl("show-ticket", ticket["uuid"])
    assert (code, json.loads(output)["url"]) == (0, f"file://{image}")
    assert ctl("list")[1].startswith("TRANSFER")
    assert ctl("del-ticket", ticket["uuid"]) == (0, "", "")
    code, _, error = ctl("show-ticket", ticket["uuid"])
    assert (code, error) == (1, "ovirt-imageioctl: No such ticket; `ovirt-imageioctl list` shows those there are\n")
