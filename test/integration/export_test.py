"""Tickets that name images: the daemon starts and ends qemu-nbd by itself."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fakes.waiting import wait_until
from real import daemon

from ovirt_imageio.qemu import img

pytestmark = pytest.mark.storage

SIZE = 1024**2
CONFIG = """\
[export]
enable = true
allow = file://{folder}/*.qcow2
"""


# What the unit of systemd leaves root before the daemon becomes another user.
CAPABILITIES = "-all,+setuid,+setgid,+chown,+dac_override,+dac_read_search,+net_bind_service"
AS_THE_UNIT = ("setpriv", f"--bounding-set={CAPABILITIES}", "--no-new-privs")


@pytest.fixture
def running(tmp_path):
    with daemon.running(tmp_path, CONFIG.format(folder=tmp_path)) as running:
        yield running


@pytest.fixture
def image(tmp_path):
    img.create(str(tmp_path / "disk.qcow2"), "qcow2", SIZE)
    return f"image:qcow2:file://{tmp_path}/disk.qcow2"


def servers(folder):
    """Return the processes of qemu-nbd that serve from the folder."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(f"--socket={folder}/".encode()) for word in words):
                pids.append(int(process.name))
    return pids


def left(folder):
    return [*servers(folder), *folder.glob("export-*")]


def test_life_of_an_image(running, image, tmp_path):
    data = os.urandom(SIZE)
    upload = running.add_ticket(url=image, size=SIZE)
    assert servers(tmp_path) == []
    with urllib.request.urlopen(urllib.request.Request(upload, data, method="PUT"), context=running.tls):
        pass
    download = running.add_ticket(url=image, size=SIZE, ops=["read"])
    with urllib.request.urlopen(download, context=running.tls) as response:
        assert response.read() == data
    assert len(set(servers(tmp_path))) == 1
    for url in (upload, download):
        assert running.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")[0] == 204
    # Nothing of the disk is open any more.
    assert servers(tmp_path) == []
    assert running.stop() == 0
    assert left(tmp_path) == []


def test_killed(running, image, tmp_path):
    url = running.add_ticket(url=image, size=SIZE)
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", url[url.index("/images") :])
        assert len(connection.getresponse().read()) == SIZE
        assert servers(tmp_path)
        running.process.kill()
        wait_until(lambda: left(tmp_path) == [])


def test_a_stop_tells_what_it_waits_for(running, image, tmp_path):
    url = running.add_ticket(url=image, size=SIZE)
    with urllib.request.urlopen(url, context=running.tls) as response:
        response.read()
    [pid] = set(servers(tmp_path))
    os.kill(pid, signal.SIGSTOP)
    running.process.terminate()
    running.wait_log("Waiting up to .* seconds for 1 servers of images to end")
    os.kill(pid, signal.SIGCONT)
    assert running.process.wait(daemon.DEADLINE) == 0
    assert left(tmp_path) == []


def test_not_allowed(running, tmp_path):
    ticket = {"uuid": "x" * 32, "size": SIZE, "ops": ["read"], "timeout": 60}
    for url in ("image:raw:file:///etc/passwd", f"image:raw:file://{tmp_path}/a.raw"):
        status, body = running.control("PUT", f"/tickets/{ticket['uuid']}", {**ticket, "url": url})
        assert (status, b"[export] allow permits" in body) == (400, True)


def test_missing(running, tmp_path):
    url = running.add_ticket(url=f"image:qcow2:file://{tmp_path}/none.qcow2", size=SIZE)
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(url, context=running.tls)
    with e.value as answer:
        text = answer.read().decode()
    assert (answer.code, "No such file" in text, str(tmp_path) in text) == (503, True, False)
    running.wait_log(f"Cannot serve an image: .*{tmp_path}")


def test_off_by_default(tmp_path, image):
    with daemon.running(tmp_path) as running:
        status, body = running.control(
            "PUT", "/tickets/x", {"uuid": "x", "size": 1, "ops": ["read"], "timeout": 60, "url": image}
        )
        assert (status, b"[export] enable" in body) == (400, True)
        assert list(tmp_path.glob("export-*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_another_user_than_the_daemon(image):
    """The daemon becomes one user, and what opens images another one, which alone may open the disk."""
    with contextlib.ExitStack() as scope:
        # Every user gets to it, which those of pytest do not allow.
        folder = Path(scope.enter_context(tempfile.TemporaryDirectory(prefix="imageio-")))
        folder.chmod(0o711)
        disk = folder / "disk.qcow2"
        shutil.copy(image.removeprefix("image:qcow2:file://"), disk)
        shutil.chown(disk, "nobody")
        disk.chmod(0o600)
        (folder / "run").mkdir()
        config = f"""\
[daemon]
drop_privileges = true
user_name = daemon
group_name = daemon
run_dir = {folder}/run
[control]
socket = {folder}/run/control.sock
[export]
enable = true
allow = file://{disk}
user = nobody
"""
        running = scope.enter_context(daemon.running(folder, config, wrapper=AS_THE_UNIT))
        running.wait_log("Running as user=daemon")
        ticket = {"uuid": "x" * 32, "url": f"image:qcow2:file://{disk}", "size": SIZE, "ops": ["write"], "timeout": 60}
        with contextlib.closing(running.connect_unix(str(folder / "run" / "control.sock"))) as control:
            control.request("PUT", f"/tickets/{ticket['uuid']}", json.dumps(ticket))
            assert control.getresponse().status == 200
        data = os.urandom(SIZE)
        request = urllib.request.Request(running.url(ticket["uuid"]), data, method="PUT")
        with urllib.request.urlopen(request, context=running.tls):
            pass
        [pid] = set(servers(folder / "run"))
        assert os.stat(f"/proc/{pid}").st_uid == pwd.getpwnam("nobody").pw_uid
        assert running.stop() == 0
        assert left(folder / "run") == []
