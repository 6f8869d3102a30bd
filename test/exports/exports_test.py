"""Servers of images are shared, end when nobody needs them, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.waiting import DEADLINE, wait_until
from real import luks

from ovirt_imageio import errors
from ovirt_imageio.backends import registry
from ovirt_imageio.backends.base import Options, Terms
from ovirt_imageio.exports.exports import Exports
from ovirt_imageio.exports.settings import Settings
from ovirt_imageio.net.lifeline import Lifeline
from ovirt_imageio.qemu import img

pytestmark = pytest.mark.storage

SIZE = 1024**2


@pytest.fixture
def images(tmp_path):
    """Return the folder of images that are permitted."""
    path = tmp_path / "images"
    path.mkdir()
    return path


@pytest.fixture
def start(tmp_path, images):
    """Return a function that starts exports, which must leave no process and no file."""
    with contextlib.ExitStack() as scope:
        folder = tmp_path / "run"

        def start(idle_seconds=60, **changes):
            folder.mkdir()
            options = {"allow": (f"file://{images}/*",), "start_seconds": DEADLINE, **changes}
            exports = Exports(Settings(str(folder), **options), idle_seconds)
            scope.callback(exports.close)
            return exports

        yield start
    assert not folder.exists()


def make(path, format="raw", **options):
    img.create(str(path), format, None if "backing_file" in options else SIZE, **options)
    return f"image:{format}:file://{path}"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def opened(exports, url, writable=True):
    return exports.open(url, writable=writable, line=Lifeline())


def backend(exports, url, writable=True, **options):
    options = Options(images=exports, **options)
    return registry.open_backend(url, Terms(options, writable, sparse=True))


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_read_and_write(start, images, format):
    exports = start()
    url = make(images / "disk", format)
    with contextlib.closing(backend(exports, url)) as disk:
        assert (disk.name, disk.size()) == ("image", SIZE)
        disk.write(0, memoryview(b"x" * 4096))
        disk.flush()
    with contextlib.closing(backend(exports, url, writable=False)) as disk:
        buffer = bytearray(8192)
        disk.readinto(0, memoryview(buffer))
    assert buffer == b"x" * 4096 + bytes(4096)


def test_shared(start, images):
    exports = start()
    url = make(images / "disk", "qcow2")
    found = [opened(exports, url), opened(exports, url, writable=False), opened(exports, url)]
    [pid] = exports.pids
    assert len({held.url for held in found}) == 1
    for held in found:
        held.close()
        held.close()
    # It is kept for the next one ...
    assert is_running(pid)
    exports.end_idle(url)
    # ... but not longer than the ticket.
    assert not is_running(pid)
    assert exports.pids == []


def test_first_ones_at_once(start, images):
    exports = start()
    url = make(images / "disk")
    found = []
    threads = [threading.Thread(target=lambda: found.append(opened(exports, url))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({held.url for held in found}) == 1
    assert len(exports.pids) == 1


def test_in_use_is_not_ended(start, images):
    exports = start()
    url = make(images / "disk")
    held = opened(exports, url)
    exports.end_idle(url)
    assert is_running(exports.pids[0])
    held.close()


def test_two_end_it_at_once(start, images):
    exports = start()
    url = make(images / "disk")
    opened(exports, url).close()
    [pid] = exports.pids

    def end(_):
        exports.end_idle(url)
        return is_running(pid)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(end, range(4))) == [False] * 4


def test_idle(start, images):
    exports = start(idle_seconds=0)
    url = make(images / "disk")
    held = opened(exports, url)
    [pid] = exports.pids
    held.close()
    wait_until(lambda: not is_running(pid))


def test_idle_when_there_are_no_more_threads(start, images, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    exports = start()
    held = opened(exports, make(images / "disk"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        held.close()
    assert exports.pids == []


def test_one_that_reads_gives_way(start, images):
    exports = start()
    url = make(images / "disk", "qcow2")
    reader = opened(exports, url, writable=False)
    with pytest.raises(errors.BackendUnavailable, match="read through another ticket"):
        opened(exports, url)
    reader.close()
    before = exports.pids
    opened(exports, url)
    assert exports.pids != before


def test_died(start, images):
    exports = start()
    url = make(images / "disk")
    disk = backend(exports, url)
    [pid] = exports.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.StorageError):
        disk.write(0, memoryview(b"x"))
    disk.close()
    wait_until(lambda: not exports._servers or next(iter(exports._servers.values())).has_ended())
    with contextlib.closing(backend(exports, url)) as disk:
        disk.write(0, memoryview(b"x"))
    assert exports.pids != [pid]


def test_one_that_does_not_answer_is_replaced(start, images):
    """Not while somebody uses it, and long before it would be idle."""
    exports = start()
    url = make(images / "disk")
    other = opened(exports, url)
    disk = backend(exports, url, nbd_reply_timeout=0.2)
    [pid] = exports.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(errors.BackendTimeout):
        disk.write(0, memoryview(b"x"))
    os.kill(pid, signal.SIGCONT)
    disk.close()
    assert is_running(pid)
    other.close()
    wait_until(lambda: not is_running(pid))
    with contextlib.closing(backend(exports, url)) as disk:
        disk.write(0, memoryview(b"x"))
    assert exports.pids != [pid]


def test_many_leave_nothing(start, images, tmp_path):
    exports = start()
    for number in range(10):
        url = make(images / f"disk-{number}")
        opened(exports, url).close()
        exports.end_idle(url)
    assert exports.pids == []
    assert list((tmp_path / "run").iterdir()) == []
    assert exports._servers == {}


@pytest.mark.parametrize(
    "url",
    [
        "image:raw:file:///etc/passwd",
        "image:raw:file:///proc/self/environ",
        "image:raw:file://{0}/../passwd",
        "image:raw:file://{0}/a/b",
        "image:raw:rbd:a/b",
        "image:vmdk:file://{0}/a",
        "image:raw:json:{{}}",
        "image:raw:fat:/etc",
        "image:raw:{0}/a",
        "image:raw:nbd:unix:/run/sock",
        "image:luks:file://{0}/a",
        "image:raw,secret=a:file://{0}/a",
        "image:luks,secret=../a:file://{0}/a",
        "image:luks,secret=a:file://{0}/a",
        "image::file://{0}/a",
    ],
)
def test_bad_urls(start, images, url):
    exports = start()
    for refused in (exports.check, lambda url: opened(exports, url)):
        with pytest.raises(errors.InvalidValue):
            refused(url.format(images))


def refusal(exports, url, kind=errors.BackendUnavailable):
    """Return why an image cannot be opened; a client must not learn where it is."""
    with pytest.raises(kind) as e:
        opened(exports, url)
    text = str(e.value)
    assert "/images" not in text
    assert exports.pids == []
    return text


def test_missing(start, images):
    assert "No such file" in refusal(start(), f"image:raw:file://{images}/none")


def test_not_a_file(start, images):
    (images / "folder").mkdir()
    os.mkfifo(images / "fifo")
    exports = start()
    for name in ("folder", "fifo"):
        assert "not a file that can be served" in refusal(exports, f"image:raw:file://{images}/{name}")


def test_wrong_format(start, images):
    make(images / "disk")
    assert "not in qcow2 format" in refusal(start(), f"image:qcow2:file://{images}/disk")


def test_link_out_of_the_folder(start, images, tmp_path):
    exports = start()
    make(tmp_path / "other")
    make(images / "disk")
    (images / "out").symlink_to(tmp_path / "other")
    (images / "in").symlink_to(images / "disk")
    assert "the log of the service tells" in refusal(exports, f"image:raw:file://{images}/out")
    opened(exports, f"image:raw:file://{images}/in").close()


def test_backing_file_elsewhere(start, images, tmp_path):
    exports = start()
    make(tmp_path / "other")
    make(images / "base")
    url = make(images / "bad", "qcow2", backing_file=str(tmp_path / "other"), backing_format="raw")
    assert "the log of the service tells" in refusal(exports, url)
    url = make(images / "good", "qcow2", backing_file="base", backing_format="raw")
    opened(exports, url).close()


def test_backing_file_in_json(start, images, tmp_path):
    make(tmp_path / "other")
    name = 'json:{"driver": "raw", "file": {"driver": "file", "filename": "%s"}}' % (tmp_path / "other")
    url = make(images / "bad", "qcow2", backing_file=name, backing_format="raw")
    assert "the log of the service tells" in refusal(start(), url)


def test_locked(start, images):
    url = make(images / "disk", "qcow2")
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(images / "disk")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        # Its prompt tells that the image is open.
        assert other.stdout.read(8) == b"qemu-io>"
        assert "another program uses" in refusal(start(), url)
        other.stdin.close()


@pytest.mark.slow
def test_encrypted(start, images, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "wrong").write_text("other")
    luks.create(images / "disk", "passphrase", secrets / "office")
    exports = start(secrets_dir=str(secrets))
    assert "Invalid password" in refusal(exports, f"image:luks,secret=wrong:file://{images}/disk")
    assert "there is no secret 'none'" in refusal(exports, f"image:luks,secret=none:file://{images}/disk")
    with contextlib.closing(backend(exports, f"image:luks,secret=office:file://{images}/disk")) as disk:
        assert disk.size() == SIZE


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_hangs_at_start(start, images, tmp_path):
    exports = start(sandbox=(script(tmp_path / "hang", "exec sleep 100"),), start_seconds=0.2)
    assert "not ready after 0.2 seconds" in refusal(exports, make(images / "disk"), errors.BackendTimeout)


def test_cut_while_it_starts(start, images, tmp_path):
    wait = f"touch {tmp_path}/started; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 1"
    exports = start(sandbox=(script(tmp_path / "hang", wait),))
    url, line, raised = make(images / "disk"), Lifeline(), []

    def wait_for_it():
        with pytest.raises((OSError, errors.Error)) as e:
            exports.open(url, writable=True, line=line)
        raised.append(e.value)

    thread = threading.Thread(target=wait_for_it)
    thread.start()
    wait_until((tmp_path / "started").exists)
    line.cut()
    thread.join()
    assert isinstance(raised[0], ConnectionAbortedError)
    # The attendant may end.
    (tmp_path / "go").touch()


def test_not_installed(start, images, monkeypatch):
    monkeypatch.setenv("QEMU_NBD", "/nowhere/qemu-nbd")
    assert "cannot run /nowhere/qemu-nbd" in refusal(start(), make(images / "disk"))


def test_sandbox(start, images, tmp_path):
    exports = start(sandbox=(script(tmp_path / "wrap", f'echo "$1" >>{tmp_path}/log; exec "$@"'),))
    opened(exports, make(images / "disk", "qcow2")).close()
    assert (tmp_path / "log").read_text().split() == ["qemu-img", "qemu-nbd"]


def test_no_new_privileges(start, images):
    exports = start()
    opened(exports, make(images / "disk"))
    status = Path(f"/proc/{exports.pids[0]}/status").read_text()
    if shutil.which("setpriv"):
        assert "NoNewPrivs:\t1" in status


def test_helper_that_died(start, images):
    exports = start()
    exports._helper.kill()
    exports._helper.wait()
    assert "restart the service" in refusal(exports, make(images / "disk"))


def test_closed(start, images):
    exports = start()
    url = make(images / "disk")
    opened(exports, url).close()
    [pid] = exports.pids
    exports.close()
    assert not is_running(pid)
    with pytest.raises(errors.ServiceStops):
        opened(exports, url)


KILLED = """
import sys
from ovirt_imageio.exports.exports import Exports
from ovirt_imageio.exports.settings import Settings
from ovirt_imageio.net.lifeline import Lifeline
exports = Exports(Settings(sys.argv[1], ("file:///**",)))
held = exports.open(sys.argv[2], writable=True, line=Lifeline())
print(exports.pids[0], flush=True)
sys.stdin.read()
"""


def test_killed(tmp_path, images):
    """Whoever started it: it ends, and what it left is removed."""
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", KILLED, str(folder), make(images / "disk")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.kill()
    wait_until(lambda: not is_running(pid))
    wait_until(lambda: not folder.exists())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_another_user(start, images, tmp_path):
    nobody = pwd.getpwnam("nobody")
    url = make(images / "disk")
    for path in (images / "disk", images):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    exports = start(account=("nobody", nobody.pw_uid, nobody.pw_gid), is_shared=True)
    os.chown(tmp_path / "run", nobody.pw_uid, os.getegid())
    os.chmod(tmp_path / "run", 0o710)
    # The folders of pytest are for its user alone.
    for parent in [tmp_path, *tmp_path.parents][:3]:
        os.chmod(parent, 0o711)
    with contextlib.closing(backend(exports, url)) as disk:
        assert disk.size() == SIZE
        assert os.stat(f"/proc/{exports.pids[0]}").st_uid == nobody.pw_uid
