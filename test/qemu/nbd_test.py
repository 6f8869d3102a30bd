"""qemu-nbd is started, is ready when start() returns, and leaves nothing behind."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fakes import ports
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio import errors
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu import nbd as nbd_server
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage

SIZE = 1024**2


@pytest.fixture(autouse=True)
def temp_dir(tmp_path, monkeypatch):
    """Let qemu-nbd have its temporary directories where the test can see them."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


@pytest.fixture(params=["raw", "qcow2"])
def image(request, tmp_path):
    return make_image(tmp_path, request.param)


def make_image(tmp_path, format):
    path = str(tmp_path / f"disk.{format}")
    img.create(path, format, SIZE)
    return {"path": path, "format": format}


def nbdinfo(url, *arguments):
    """Return what libnbd's tool finds at one of our URLs."""
    unix, name = re.fullmatch(r"nbd:unix:([^:]*)(?::exportname=(.*))?", url).groups()
    command = ["nbdinfo", *arguments, "--json", f"nbd+unix:///{name or ''}?socket={unix}"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def export(url):
    return nbdinfo(url)["exports"][0]


def is_running(pid):
    """Tell whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # The second one is of a process that ends while we read.
        return False


def test_serves(image, temp_dir):
    with QemuNbd(**image) as server:
        found = export(server.url)
        assert found["export-size"] == SIZE
        assert not found["is_read_only"]
        assert ("qemu:allocation-depth" in found["contexts"]) == (image["format"] == "qcow2")
        [private] = temp_dir.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        pid = server.pid
    assert not is_running(pid)
    assert list(temp_dir.iterdir()) == []


def test_probes_format(tmp_path):
    with QemuNbd(make_image(tmp_path, "qcow2")["path"]) as server:
        assert export(server.url)["export-size"] == SIZE


def test_read_only(image):
    with QemuNbd(**image, read_only=True) as server:
        assert export(server.url)["is_read_only"]


def test_export_name(image):
    with QemuNbd(**image, export_name="disk/1") as server:
        assert server.url.endswith(":exportname=disk/1")
        assert export(server.url)["export-name"] == "disk/1"


def test_chosen_socket(image, tmp_path):
    path = str(tmp_path / "sock")
    with QemuNbd(**image, listen=path) as server:
        assert server.url == f"nbd:unix:{path}"
        assert export(server.url)["export-size"] == SIZE
    assert not os.path.exists(path)


def test_tcp(image):
    with ports.reserved() as port, QemuNbd(**image, listen=("127.0.0.1", port)) as server:
        assert server.url == f"nbd:127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
            assert client.recv(8, socket.MSG_WAITALL) == b"NBDMAGIC"


def test_url_of_ipv6():
    server = QemuNbd("disk", "raw")
    server._address = ("::1", 10809)
    assert server.url == "nbd:[::1]:10809"


def test_again(image):
    server = QemuNbd(**image)
    for _ in range(2):
        with server:
            assert export(server.url)["export-size"] == SIZE


def test_bitmap(tmp_path):
    image = make_image(tmp_path, "qcow2")
    subprocess.run(["qemu-img", "bitmap", "--add", image["path"], "b1"], check=True)
    with QemuNbd(**image, read_only=True, bitmap="b1") as server:
        assert "qemu:dirty-bitmap:b1" in export(server.url)["contexts"]


@pytest.mark.parametrize("backing_chain, is_data", [(True, True), (False, False)])
def test_backing_chain(tmp_path, backing_chain, is_data):
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(b"x" * SIZE)
    img.create(str(top), "qcow2", backing_file=str(base), backing_format="raw")
    with QemuNbd(str(top), "qcow2", read_only=True, backing_chain=backing_chain) as server:
        [extent] = nbdinfo(server.url, "--map")
        assert (extent["description"] == "data") == is_data


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_part_of_a_file(tmp_path, format):
    image = make_image(tmp_path, format)
    archive = tmp_path / "archive"
    with open(image["path"], "rb") as file:
        member = file.read()
    member += bytes(-len(member) % 512)
    archive.write_bytes(b"head" * 128 + member + b"tail" * 128)
    with QemuNbd(str(archive), format, read_only=True, offset=512, size=len(member)) as server:
        assert export(server.url)["export-size"] == SIZE


def test_flags(image):
    with QemuNbd(**image, discard=None, detect_zeroes=None, cache="writeback", shared=2) as server:
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    assert not [argument for argument in arguments if "discard" in argument or "detect" in argument]
    assert {"--cache=writeback", "--aio=threads", "--shared=2", "--persistent"} <= set(arguments)


@pytest.mark.parametrize(
    "is_direct, flags", [(True, {"--cache=none", "--aio=native"}), (False, {"--cache=writeback", "--aio=threads"})]
)
def test_cache_follows_the_file_system(tmp_path, monkeypatch, is_direct, flags):
    monkeypatch.setattr(nbd_server, "can_open_direct", lambda path, read_only: is_direct)
    assert flags <= set(QemuNbd("disk", "raw")._command())


def test_direct_needs_a_file(tmp_path):
    assert not nbd_server.can_open_direct(str(tmp_path / "none"), True)


def test_missing_image(tmp_path, temp_dir):
    with pytest.raises(errors.BackendUnavailable, match=r"start qemu-nbd: .*Could not open .*No such file"):
        QemuNbd(str(tmp_path / "none"), "raw").start()
    assert list(temp_dir.iterdir()) == []


def test_wrong_format(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match="not in qcow2 format"):
        QemuNbd(make_image(tmp_path, "raw")["path"], "qcow2").start()


def test_locked_image(tmp_path):
    image = make_image(tmp_path, "qcow2")
    with QemuNbd(**image), pytest.raises(errors.BackendUnavailable, match="lock"):
        QemuNbd(**image).start()


def test_unknown_bitmap(tmp_path):
    with pytest.raises(errors.BackendUnavailable, match="b1"):
        QemuNbd(**make_image(tmp_path, "qcow2"), bitmap="b1").start()


def test_not_installed(monkeypatch, image):
    monkeypatch.setenv("QEMU_NBD", "/nowhere/qemu-nbd")
    with pytest.raises(errors.BackendUnavailable, match=r"cannot run /nowhere/qemu-nbd.*install it"):
        QemuNbd(**image).start()


def script(path, text):
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo qemu-nbd 4.2.0; exit; fi\n{text}\n')
    path.chmod(0o755)
    return str(path)


def test_old_version(tmp_path, monkeypatch):
    monkeypatch.setenv("QEMU_NBD", script(tmp_path / "old", ""))
    assert "--allocation-depth" not in QemuNbd("disk", "qcow2")._command()
    with pytest.raises(errors.BackendUnavailable, match=r"qemu-nbd 5\.2\.0 or newer"):
        QemuNbd("disk", "qcow2", backing_chain=False).start()


def test_never_ready(tmp_path, monkeypatch, temp_dir):
    monkeypatch.setenv("QEMU_NBD", script(tmp_path / "slow", "exec sleep 100"))
    with pytest.raises(errors.BackendTimeout, match=r"not ready after 0\.1 seconds"):
        QemuNbd("disk", "raw", timeout=0.1).start()
    assert list(temp_dir.iterdir()) == []


def test_dies_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setenv("QEMU_NBD", script(tmp_path / "dumb", "exit 1"))
    with pytest.raises(errors.BackendUnavailable, match="without a word"):
        QemuNbd("disk", "raw").start()


def test_stubborn_is_killed(tmp_path, monkeypatch, caplog):
    ready = 'for a; do case $a in --pid-file=*) touch "${a#*=}";; esac; done'
    monkeypatch.setenv("QEMU_NBD", script(tmp_path / "deaf", f"trap '' TERM\n{ready}\nwhile :; do sleep 0.01; done"))
    server = QemuNbd("disk", "raw", timeout=0.2)
    # Its timeout is for the start as well, and a shell on a busy machine is slow.
    server.timeout = DEADLINE
    server.start()
    server.timeout = 0.1
    pid = server.pid
    server.stop()
    assert not is_running(pid)
    assert "does not end, killing it" in caplog.text


def test_is_asked_to_end_until_it_does(tmp_path, monkeypatch, caplog):
    """Like qemu-nbd, which forgets a signal that comes while it starts."""
    ready = 'for a; do case $a in --pid-file=*) touch "${a#*=}";; esac; done'
    forget = "trap 'trap \"exit 0\" TERM' TERM"
    monkeypatch.setenv("QEMU_NBD", script(tmp_path / "busy", f"{forget}\n{ready}\nwhile :; do sleep 0.01; done"))
    server = QemuNbd("disk", "raw", timeout=DEADLINE)
    server.start()
    server.stop()
    assert "does not end" not in caplog.text


def test_ends_by_itself(image, caplog):
    with QemuNbd(**image) as server:
        server.send_signal(signal.SIGKILL)
        assert server.wait(DEADLINE) == -signal.SIGKILL
        assert not server.is_running
    assert "status=-9" in caplog.text


def test_stop_twice(image):
    server = QemuNbd(**image)
    assert not server.is_running
    server.start()
    assert server.is_running
    server.stop()
    server.stop()
    assert not server.is_running


def test_has_its_own_session(image):
    with QemuNbd(**image) as server:
        assert os.getsid(server.pid) == server.pid


STARTER = """
import sys
from ovirt_imageio.qemu.nbd import QemuNbd
server = QemuNbd(sys.argv[1], "raw")
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not nbd_server.has_setpriv(), reason="no setpriv with --pdeathsig")
def test_ends_when_we_are_killed(tmp_path, temp_dir):
    command = [sys.executable, "-c", STARTER, make_image(tmp_path, "raw")["path"]]
    environ = {**os.environ, "TMPDIR": str(temp_dir)}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    wait_until(lambda: not is_running(pid))


def test_outlives_the_thread_that_started_it(image):
    server = QemuNbd(**image)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with contextlib.closing(contextlib.ExitStack()) as scope:
        scope.callback(server.stop)
        assert export(server.url)["export-size"] == SIZE
