"""Images that the daemon opens itself, under the limits that the unit sets: processes, sockets, and another user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from pathlib import Path

import pytest
from machine.service import UNIT, ask, output_of, run, slow_download, wait_until

SIZE = 4 * 1024**2
FOLDER = Path("/var/lib/disks")
RUN = Path("/run/ovirt-imageio")
CONFIG = f"""\
[export]
enable = true
allow = file://{FOLDER}/export.*
idle_seconds = 600
"""

# Whom qemu-nbd runs as, the daemon or somebody else, and what it opens.
CASES = [("ovirtimg", "raw"), ("nobody", "qcow2")]


@pytest.fixture(params=CASES, ids=" ".join)
def case(request):
    return request.param


@pytest.fixture
def user(case):
    return case[0]


@pytest.fixture
def exporting(service, user):
    """The service with [export], running."""
    service.configure(CONFIG + f"user = {user if user != 'ovirtimg' else ''}\n")
    service.systemctl("start", UNIT)
    return service


@pytest.fixture
def image(case):
    """An image that only that user may open, as the URL of a ticket."""
    user, format = case
    path = FOLDER / f"export.{format}"
    output_of("qemu-img", "create", "-q", "-f", format, str(path), str(SIZE))
    path.chmod(0o600)
    shutil.chown(path, user)
    yield f"image:{format}:file://{path}"
    path.unlink()


def servers():
    """Return the users of the processes of qemu-nbd, by id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.path.basename((process / "cmdline").read_bytes().split(b"\0")[0]) == b"qemu-nbd":
                found[int(process.name)] = pwd.getpwuid(process.stat().st_uid).pw_name
    return found


def ticket_of(path):
    return "/tickets/" + path.rpartition("/")[2]


def test_from_ticket_to_end(exporting, image, user):
    path, data = exporting.add_ticket(image, SIZE), os.urandom(SIZE)
    assert servers() == {}
    ask(exporting.connect_local(), "PUT", path, data)
    assert ask(exporting.connect_local(), "GET", path) == data
    [pid] = servers()
    assert servers()[pid] == user
    assert UNIT in Path(f"/proc/{pid}/cgroup").read_text()
    assert exporting.control("DELETE", ticket_of(path))[0] == 204
    assert servers() == {}
    # A restart waits for the download, and hands the ticket over: the next request starts the server again.
    path = exporting.add_ticket(image, SIZE)
    with slow_download(exporting.connect_local(), path) as response:
        first = response.read(1024)
        [pid] = servers()
        exporting.systemctl("--no-block", "restart", UNIT)
        assert first + response.read() == data
    wait_until(lambda: exporting.pid and pid not in servers(), "the first process is gone with its server")
    assert ask(exporting.connect_local(), "GET", path) == data
    ask(exporting.connect_local(), "PUT", path, data[::-1])
    assert ask(exporting.connect_local(), "GET", path) == data[::-1]
    [pid] = servers()
    exporting.systemctl("kill", "--signal=KILL", "--kill-whom=main", UNIT)
    wait_until(lambda: pid not in servers(), "its server goes with a daemon that is killed")
    exporting.systemctl("start", UNIT)
    path = exporting.add_ticket(image, SIZE)
    assert ask(exporting.connect_local(), "GET", path) == data[::-1]
    exporting.stop()
    assert servers() == {}
    assert list(RUN.glob("export-*")) == []
    assert run("systemctl", "show", "--property", "TasksCurrent", "--value", UNIT).stdout.strip() in ("", "[not set]")


def test_image_of_somebody_else(exporting, image, user):
    """What that user may not open is not opened, though the daemon started as root."""
    file = image.partition("file://")[2]
    shutil.chown(file, "root")
    path = exporting.add_ticket(image, SIZE)
    with contextlib.closing(exporting.connect_local()) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode()
    assert (response.status, "Permission denied" in text, file in text) == (503, True, False)
    assert servers() == {}
