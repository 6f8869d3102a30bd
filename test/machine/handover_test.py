"""What a real systemd keeps for the service, from one process to the next, and when it lets go of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from machine.service import CONTROL, UNIT, ask, output_of

SIZE = 256 * 1024

# One socket for each listener.
LISTENERS = 3


@pytest.fixture
def ticket(running):
    """The path of an image, of a ticket that nobody uses."""
    path = Path("/var/lib/disks/handover.raw")
    path.write_bytes(os.urandom(SIZE))
    path.chmod(0o666)
    yield running.add_ticket(f"file://{path}", SIZE)
    path.unlink()


def kept(service):
    """Return how many descriptors systemd keeps for the service."""
    return int(service.show("NFileDescriptorStore"))


def state_of(service, path):
    return service.control("GET", "/tickets/" + path.rpartition("/")[2])[0]


def test_restart(running, ticket):
    assert kept(running) == LISTENERS
    inode = os.stat(CONTROL).st_ino
    running.systemctl("restart", UNIT)
    assert state_of(running, ticket) == 200
    # The tickets were taken, and the control socket is the same one.
    assert kept(running) == LISTENERS
    assert os.stat(CONTROL).st_ino == inode


def test_crash(running, ticket):
    """Clients wait while systemd waits, and what was handed over was used once."""
    running.systemctl("restart", UNIT)
    pid = running.pid
    running.systemctl("kill", "--signal=KILL", UNIT)
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", ticket)
        assert connection.getresponse().status == 403
    assert running.pid not in (0, pid)


# What a daemon of another version might leave: a descriptor of the same name, with a format that we do not know.
ANOTHER_VERSION = """
from ovirt_imageio.service import handover, notify
manager = notify.Notifier.from_environment()
assert manager.forget("tickets") and manager.wait()
assert manager.keep("tickets", [handover.seal({"format": 2})]) and manager.wait()
"""


def test_another_version(running, ticket, tmp_path):
    """The tickets are lost, which the journal tells; the listeners are not."""
    script = tmp_path / "another_version.py"
    script.write_text(ANOTHER_VERSION)
    running.drop_in(f"[Service]\nNotifyAccess=all\nExecStopPost=/usr/bin/python3 {script}\n")
    running.systemctl("restart", UNIT)
    running.journal.wait("All tickets of before the restart are forgotten: .*'format 2'")
    assert state_of(running, ticket) == 404
    assert kept(running) == LISTENERS
    ask(running.connect_local(), "OPTIONS", "/images/*")


def test_stop(running, ticket):
    running.systemctl("stop", UNIT)
    assert kept(running) == 0
    with pytest.raises(ConnectionRefusedError):
        running.connect().connect()
    assert not os.path.exists(CONTROL)
    running.systemctl("start", UNIT)
    assert state_of(running, ticket) == 404


def test_another_port(running, ticket):
    """What systemd keeps is used only for what is configured."""
    running.configure("[remote]\nport = 54399\n")
    running.systemctl("restart", UNIT)
    with pytest.raises(ConnectionRefusedError):
        running.connect().connect()
    assert ":54399" in output_of("ss", "--tcp", "--listening", "--numeric")
    assert state_of(running, ticket) == 200
    ask(running.connect_local(), "GET", ticket)
