"""A restart of the service that no client notices, under a manager that keeps what the daemon gives it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading

import pytest
from fakes.manager import Manager
from fakes.persistent import CUT, PersistentClient, ask
from fakes.waiting import DEADLINE, wait_until
from real import certificates, daemon

from ovirt_imageio import client
from ovirt_imageio.service import handover

MiB = 1024**2
SIZE = 2 * MiB
SECRET = "f00dfeed-0000-4000-8000-c0ffeec0ffee"

# Each starts two daemons.
pytestmark = pytest.mark.slow

# What stands still is cut soon.
SETTINGS = "[daemon]\ndrain_timeout = 1\n"


@pytest.fixture
def manager(tmp_path):
    daemon.write_config(tmp_path, SETTINGS)
    (tmp_path / "daemon.log").touch()
    with Manager(tmp_path) as manager:
        yield manager


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(os.urandom(SIZE))
    return path


def started(manager):
    manager.start()
    return current(manager)


def current(manager):
    """Return the daemon that runs now."""
    log = (manager.folder / "daemon.log").read_text()
    addresses = dict(daemon.LISTENING.findall(log))
    return daemon.Daemon(manager.process, manager.folder, addresses, certificates.certificate().ca_file)


def add(own, image, **fields):
    return own.add_ticket(SECRET, url=f"file://{image}", size=image.stat().st_size, **fields)


def info(own):
    status, body = own.control("GET", f"/tickets/{SECRET}")
    assert status == 200
    return json.loads(body)


def test_ticket_and_listeners_go_on(manager, image):
    own = started(manager)
    url = add(own, image, ops=["read"], timeout=1000)
    assert own.control("PATCH", f"/tickets/{SECRET}", {"timeout": 5000, "inactivity_timeout": 77})[0] == 200
    _, part, tag = ask(own, "GET", url, Range=f"bytes=0-{MiB - 1}")
    before, port, inode = info(own), own.port, os.stat(own.control_socket).st_ino
    # Of this one a random number has chosen the name.
    local = own.addresses["local"]
    manager.restart()
    own = current(manager)
    after = info(own)
    assert (own.port, own.addresses["local"], os.stat(own.control_socket).st_ino) == (port, local, inode)
    own.connect_unix(own.local_socket).close()
    assert after["transferred"] == MiB
    assert after["inactivity_timeout"] == 77
    assert 4900 < after["remaining"] <= before["remaining"]
    # A client that waits for news, or has a part already, goes on.
    assert after["version"] > before["version"]
    status, rest, _ = ask(own, "GET", url, **{"Range": f"bytes={MiB}-", "If-Range": tag})
    assert (status, part + rest) == (206, image.read_bytes())
    assert SECRET not in own.log()


@pytest.mark.storage
def test_an_image_is_opened_again(manager, image):
    """Its server ends with the daemon, what was written included; the next process starts another one."""
    config = f"{SETTINGS}[export]\nenable = true\nallow = file://{image}\n"
    daemon.write_config(manager.folder, config)
    own = started(manager)
    url = own.add_ticket(SECRET, url=f"image:raw:file://{image}", size=SIZE)
    data = os.urandom(SIZE)
    assert ask(own, "PUT", url, data)[0] == 200
    [before] = manager.folder.glob("export-*/*.sock")
    manager.restart()
    own = current(manager)
    assert list(manager.folder.glob("export-*/*.sock")) == []
    assert image.read_bytes() == data
    assert ask(own, "GET", url)[1] == data
    assert not before.exists()


def test_clients_wait_while_no_daemon_runs(manager, image):
    own = started(manager)
    url = add(own, image)
    assert manager.end(signal.SIGTERM) == 0
    with socket.create_connection(("localhost", own.port), DEADLINE) as early:
        manager.start()
        with own.tls.wrap_socket(early, server_hostname="localhost") as stream:
            path = "/images/" + url.rpartition("/")[2]
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert stream.recv(100).startswith(b"HTTP/1.1 200 ")


def test_an_upload_that_the_drain_cuts_may_be_repeated(manager, image):
    """It is cut, or told to try again; it is not told that there is no such ticket, which is final."""
    own = started(manager)
    url = add(own, image)
    data = os.urandom(SIZE)
    connection = own.connect()
    connection.putrequest("PUT", "/images/" + url.rpartition("/")[2])
    connection.putheader("Content-Length", str(SIZE))
    connection.endheaders(data[:MiB])
    wait_until(lambda: info(own)["active"])
    assert manager.end(signal.SIGTERM) == 0
    try:
        response = connection.getresponse()
        assert (response.status, response.headers["retry-after"]) == (503, "1")
    except CUT:
        pass
    connection.close()
    manager.start()
    assert ask(own, "PUT", url, data)[0] == 200
    assert image.read_bytes() == data
    # What was cut has lost nothing that a flush would have to tell of.
    assert ask(own, "PATCH", url, b'{"op": "flush"}')[0] == 200


def test_nobody_notices(manager, tmp_path):
    """No connection is refused, no ticket is lost, no byte is wrong, while clients never stop."""
    own = started(manager)
    is_over = threading.Event()
    workers = [PersistentClient(own, tmp_path / f"disk-{number}", SIZE, is_over) for number in range(6)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(3):
            seen = [worker.rounds for worker in workers]
            wait_until(lambda seen=seen: all(w.rounds > r or w.faults for w, r in zip(workers, seen)))
            manager.restart()
        seen = [worker.rounds for worker in workers]
        wait_until(lambda: all(w.rounds > r or w.faults for w, r in zip(workers, seen)))
    finally:
        is_over.set()
        for worker in workers:
            worker.join(DEADLINE)
    assert [worker.faults for worker in workers] == [[]] * len(workers)


def test_our_client_goes_on(manager, tmp_path):
    own = started(manager)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(16 * MiB))
    target.write_bytes(bytes(16 * MiB))
    add(own, target)
    url = own.url(SECRET)
    uploaded = threading.Thread(
        target=client.upload, args=(str(source), url, own.ca_file), kwargs={"bandwidth": 8 * MiB}, name="upload"
    )
    uploaded.start()
    wait_until(lambda: info(own)["active"])
    manager.restart()
    uploaded.join(DEADLINE)
    assert target.read_bytes() == source.read_bytes()


def test_a_crash_forgets_the_tickets_and_a_stop_everything(manager, image):
    own = started(manager)
    url = add(own, image)
    other = own.add_ticket(url=f"file://{image}", size=SIZE)
    assert own.control("DELETE", f"/tickets/{SECRET}")[0] == 204
    manager.restart()
    # What was removed does not come back.
    assert [ask(own, "GET", one)[0] for one in (url, other)] == [403, 200]
    assert manager.end(signal.SIGKILL) == -signal.SIGKILL
    manager.start()
    assert current(manager).port == own.port
    # What was handed over was used once.
    assert ask(own, "GET", other)[0] == 403
    own = current(manager)
    add(own, image)
    manager.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", own.port), DEADLINE).close()


def test_a_second_signal_forgets_the_tickets(manager, image):
    """A person that wants an end at once waits for nothing."""
    daemon.write_config(manager.folder)
    own = started(manager)
    url = add(own, image)
    with own.tls.wrap_socket(socket.create_connection(("localhost", own.port)), server_hostname="localhost") as stream:
        path = "/images/" + url.rpartition("/")[2]
        stream.sendall(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode())
        wait_until(lambda: info(own)["active"])
        manager.process.send_signal(signal.SIGTERM)
        own.wait_log("Stopping signal")
        assert manager.end(signal.SIGTERM) == 0
    assert "tickets" not in manager.kept


def test_sockets_of_a_socket_unit_are_used_and_not_kept_twice(tmp_path, image):
    daemon.write_config(tmp_path, SETTINGS)
    (tmp_path / "daemon.log").touch()
    with socket.create_server(("localhost", 0)) as sock, Manager(tmp_path, opened={"remote": [sock]}) as manager:
        own = started(manager)
        url = add(own, image)
        assert own.port == sock.getsockname()[1]
        manager.restart()
        assert ask(own, "GET", url)[0] == 200
        assert {name.split("-")[1] for name in manager.kept} == {"local", "control"}


def test_a_manager_that_keeps_nothing(tmp_path, image):
    """As with a unit of one's own: a restart is a stop and a start."""
    daemon.write_config(tmp_path, SETTINGS)
    (tmp_path / "daemon.log").touch()
    with Manager(tmp_path, limit=0) as manager:
        own = started(manager)
        add(own, image)
        manager.restart()
        assert current(manager).control("GET", f"/tickets/{SECRET}")[0] == 404


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: handover.seal({"format": 2, "tickets": [{"uuid": SECRET}]}), "'format 2': expected format 1"),
        (lambda: os.open("/dev/zero", os.O_RDONLY), "expected sealed memory"),
    ],
    ids=["another version", "no memory"],
)
def test_what_is_not_ours_is_told_and_forgotten(manager, make, told):
    manager.kept["tickets"] = [make()]
    own = started(manager)
    assert "All tickets of before the restart are forgotten: Invalid" in own.log()
    assert told in own.log()
    assert SECRET not in own.log()
    assert json.loads(own.control("GET", "/tickets")[1]) == []
    assert "tickets" not in manager.kept
