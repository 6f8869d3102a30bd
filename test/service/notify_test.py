"""systemd hears how we are."""

import logging
import os
import socket

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
