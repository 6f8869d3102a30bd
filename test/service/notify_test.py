"""systemd hears how we are."""

import logging
import os
import socket
import threading

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.service.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A socket of a service manager, and its address as systemd writes it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@ovirt-imageio-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0") if request.param == "abstract" else address)
        manager.settimeout(DEADLINE)
        yield manager, address


def test_messages(manager):
    receiver, address = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("3 transfers\nmore")
    notifier.alive()
    notifier.stopping()
    received = [receiver.recv(1000) for _ in range(4)]
    assert received == [b"READY=1", b"STATUS=3 transfers more", b"WATCHDOG=1", b"STOPPING=1"]


def test_no_manager(caplog):
    with caplog.at_level(logging.WARNING):
        Notifier.from_environment({}).ready()
    assert caplog.text == ""


def test_dead_manager(tmp_path, caplog):
    Notifier(str(tmp_path / "gone")).ready()
    assert "Cannot tell systemd READY=1" in caplog.text


WATCHED = [
    ({}, None),
    ({"WATCHDOG_USEC": "4000000"}, 2.0),
    ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
    ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, None),
    ({"WATCHDOG_USEC": "often"}, None),
]


@pytest.mark.parametrize("environ, interval", WATCHED)
def test_watchdog(environ, interval):
    assert Notifier.from_environment(environ).watchdog_interval == interval


def hear(receiver, script):
    """Answer messages in a thread, as a manager does; script is called with each message and its descriptors."""

    def run():
        message, descriptors, _, _ = socket.recv_fds(receiver, 1000, 10)
        script(message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_keep(manager):
    receiver, address = manager
    reader, writer = os.pipe()
    heard = []

    def script(message, descriptors):
        heard.append(message)
        os.write(descriptors[0], b"x")

    thread = hear(receiver, script)
    assert Notifier(address).keep("tickets", [writer, reader])
    thread.join(DEADLINE)
    assert heard == [b"FDSTORE=1\nFDNAME=tickets"]
    assert os.read(reader, 1) == b"x"
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_forget(manager):
    receiver, address = manager
    assert Notifier(address).forget("tickets")
    assert receiver.recv(1000) == b"FDSTOREREMOVE=1\nFDNAME=tickets"


def test_wait(manager):
    receiver, address = manager
    heard = []
    thread = hear(receiver, lambda message, descriptors: heard.append(message))
    assert Notifier(address).wait()
    assert heard == [b"BARRIER=1"]
    thread.join(DEADLINE)


def test_wait_for_a_manager_that_is_busy(manager):
    _, address = manager
    assert not Notifier(address).wait(0.01)


def test_nobody_keeps_anything():
    notifier = Notifier()
    assert not notifier.has_manager
    assert not notifier.keep("tickets", [0])
    assert not notifier.forget("tickets")
    assert not notifier.wait()
