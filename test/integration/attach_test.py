"""Disks attached through the real daemon by the NBD programs that people use, over TLS and over the Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from fakes.waiting import DEADLINE, wait_until
from real import daemon as real_daemon
from real.daemon import Daemon
from real.nbd import StorageDaemon, nbdkit, run

from ovirt_imageio.client.attach import Attachment
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.nbd import address, connect
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.errors import ConnectionDead, RequestFailed
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage

MIB = 1024**2
SIZE = 16 * MIB

# Programs of the system, before those of whatever Python is in use; some are for administrators only.
SYSTEM = ["env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]

# Clients on this host take the Unix socket where there is one.
WAYS = {"unix": "", "tls": "[local]\nenable = false\n"}


@pytest.fixture(scope="module", params=WAYS)
def daemon(request, tmp_path_factory) -> Iterator[Daemon]:
    with real_daemon.running(tmp_path_factory.mktemp("daemon"), WAYS[request.param]) as running:
        yield running


class Served(NamedTuple):
    """A disk of a ticket: its URL, the ticket's id, and what reads the disk by other means."""

    url: str
    ticket_id: str
    content: Callable[[], bytes]


@contextlib.contextmanager
def served_file(daemon: Daemon, folder: Path) -> Iterator[Served]:
    path = folder / "disk.raw"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    url = daemon.add_ticket(url=f"file://{path}", size=SIZE, sparse=True)
    yield Served(url, url.rpartition("/")[2], path.read_bytes)


@contextlib.contextmanager
def served_qcow2(daemon: Daemon, folder: Path) -> Iterator[Served]:
    raw, path, copy = folder / "raw", folder / "disk.qcow2", folder / "copy"
    raw.write_bytes(random.Random(1).randbytes(SIZE))
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])

    def content() -> bytes:
        run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, copy])
        return copy.read_bytes()

    with QemuNbd(str(path), "qcow2", shared=8) as server:
        url = daemon.add_ticket(url=server.url, size=SIZE, sparse=True)
        yield Served(url, url.rpartition("/")[2], content)


@pytest.fixture(params=[served_file, served_qcow2], ids=["file", "nbd"])
def served(request, daemon, tmp_path) -> Iterator[Served]:
    with request.param(daemon, tmp_path) as served:
        yield served


@contextlib.contextmanager
def attached(daemon: Daemon, served: Served, **options: Any) -> Iterator[str]:
    with contextlib.closing(Remote(served.url, daemon.ca_file)) as remote, Attachment(remote, **options) as found:
        yield found.uri


def connected(uri: str) -> Client:
    return connect.connect(address.parse(uri))


def info(daemon: Daemon, served: Served) -> dict[str, Any]:
    status, body = daemon.control("GET", f"/tickets/{served.ticket_id}")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize("connections,requests", [(1, 64), (4, 16)])
def test_nbdcopy(tmp_path, daemon, served, connections, requests):
    options = [f"--connections={connections}", f"--requests={requests}"]
    there, other = tmp_path / "there", tmp_path / "other"
    other.write_bytes(random.Random(2).randbytes(SIZE))
    with attached(daemon, served) as uri:
        run(["nbdcopy", *options, uri, there])
        assert there.read_bytes() == served.content()
        run(["nbdcopy", *options, "--flush", other, uri])
    assert served.content() == other.read_bytes()
    assert info(daemon, served)["active"] is False


def test_qemu(tmp_path, daemon, served):
    copy = tmp_path / "image.qcow2"
    with attached(daemon, served) as uri:
        found = img.info(uri, "raw")
        assert found["virtual-size"] == SIZE
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, copy])
        assert run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, copy]).startswith("Images are identical")
        words = ["write -P 7 4096 100k", "write -z 1M 64k", "read -P 7 4096 100k", "read -P 0 1M 64k", "flush"]
        done = run(["qemu-io", "-f", "raw", uri, *(part for word in words for part in ("-c", word))])
        assert "failed" not in done
    data = served.content()
    assert data[4096 : 4096 + 100 * 1024] == b"\7" * 100 * 1024
    assert data[MIB : MIB + 65536] == bytes(65536)


def test_extents(daemon, served):
    with attached(daemon, served) as uri:
        with connected(uri) as nbd:
            nbd.zero(4 * MIB, 8 * MIB)
            nbd.flush()
        found = json.loads(run(["qemu-img", "map", "--output=json", "-f", "raw", uri]))
        assert [(each["start"], each["length"], each["zero"]) for each in found] == [
            (0, 4 * MIB, False),
            (4 * MIB, 8 * MIB, True),
            (12 * MIB, 4 * MIB, False),
        ]


def test_nbdkit_on_top(tmp_path, daemon, served):
    """A writable view of a disk that stays as it is."""
    before = served.content()
    copy = tmp_path / "copy"
    with attached(daemon, served, read_only=True) as uri, nbdkit("--filter=cow", "nbd", f"uri={uri}") as path:
        top = f"nbd+unix:///?socket={path}"
        run(["qemu-io", "-f", "raw", top, "-c", "write -P 1 0 1M"])
        run(["nbdcopy", top, copy])
        assert copy.read_bytes() == b"\1" * MIB + before[MIB:]
    assert served.content() == before


def test_nbdkit_filters_on_top(tmp_path, daemon, served):
    """Some that change which requests come: reads ahead, blocks that are kept, parts of blocks, a larger disk."""
    before = served.content()
    copy = tmp_path / "filtered"
    filters = ["--filter=truncate", "--filter=blocksize", "--filter=cache", "--filter=readahead"]
    options = ["truncate=32M", "minblock=4096", "maxdata=64k", "cache=writethrough", "cache-on-read=true"]
    with attached(daemon, served) as uri, nbdkit(*filters, "nbd", f"uri={uri}", *options) as path:
        top = f"nbd+unix:///?socket={path}"
        run(["qemu-io", "-f", "raw", top, "-c", "write -P 1 1234567 1000", "-c", "flush"])
        run(["nbdcopy", top, copy])
    after = before[:1234567] + b"\1" * 1000 + before[1235567:]
    assert served.content() == after
    assert copy.read_bytes() == after + bytes(SIZE)


def test_one_file_of_a_file_system(tmp_path, daemon):
    """What a guest has in the second partition of its disk."""
    files, image = tmp_path / "files", tmp_path / "image"
    files.mkdir()
    text = random.Random(3).randbytes(MIB)
    (files / "hello").write_bytes(text)
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    table = "label: dos\nstart=2048, size=2048, type=83\nstart=4096, type=83\n"
    subprocess.run([*SYSTEM, "sfdisk", "--quiet", str(image)], input=table.encode(), check=True)
    run([*SYSTEM, "mkfs.ext4", "-q", "-d", files, "-E", f"offset={4096 * 512}", image, f"{62 * 1024}k"])
    url = daemon.add_ticket(url=f"file://{image}", size=64 * MIB, ops=["read"])
    disk = Served(url, url.rpartition("/")[2], image.read_bytes)
    filters = [f"--filter={name}" for name in ("noextents", "ext2", "partition")]
    options = ["partition=2", "ext2file=/hello"]
    with (
        attached(daemon, disk) as uri,
        # Where the disk has data says nothing about the file: the filter for ext2 does not know that.
        nbdkit("--readonly", *filters, "nbd", f"uri={uri}", *options) as path,
    ):
        run(["nbdcopy", f"nbd+unix:///?socket={path}", tmp_path / "copy"])
    assert (tmp_path / "copy").read_bytes()[: len(text)] == text
    # It fetched what the file needs, not the disk.
    assert info(daemon, disk)["transferred"] < 16 * MIB


def test_fio(daemon, served, tmp_path):
    """Random reads and writes, 32 of them under way; what was written is read back and compared."""
    job = ["--name=disk", "--ioengine=nbd", "--iodepth=32", "--rw=randwrite", "--bs=512-64k", "--verify=crc32c"]
    limits = [
        f"--size={SIZE}",
        "--io_size=4M",
        "--do_verify=1",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--randseed=1",
    ]
    output = tmp_path / "output"
    with attached(daemon, served) as uri:
        run(["fio", "--output-format=json", f"--output={output}", *job, *limits, f"--uri={uri}"])
    text = output.read_text()
    (result,) = json.loads(text[text.index("{") :])["jobs"]
    assert result["error"] == 0
    assert result["write"]["io_bytes"] >= 4 * MIB
    assert result["read"]["total_ios"] == result["write"]["total_ios"]


NBDSH = """
assert h.get_size() == 16 * 1024**2 and not h.is_read_only() and h.can_flush() and h.can_zero()
assert h.get_structured_replies_negotiated() and h.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.pwrite(b"x" * 1000, 12345)
h.zero(1024**2, 2 * 1024**2, nbd.CMD_FLAG_NO_HOLE)
h.flush()
assert h.pread(1002, 12344)[1:-1] == b"x" * 1000
chunks = []
h.pread_structured(4096, 8192, lambda data, offset, status, error: chunks.append((offset, len(data))))
assert sum(length for _, length in chunks) == 4096
extents = []
h.block_status(1024**2, 2 * 1024**2, lambda context, offset, entries, error: extents.extend(entries))
assert sum(extents[::2]) >= 1024**2
buffers = [nbd.Buffer(4096) for _ in range(64)]
failures = []
for number, buffer in enumerate(buffers):
    h.aio_pread(buffer, number * 4096, completion=lambda error: failures.append(error.value) or 1)
while h.aio_in_flight():
    h.poll(-1)
assert failures == [0] * 64
h.set_strict_mode(0)
try:
    h.pwrite(b"x", 16 * 1024**2)
except nbd.Error as error:
    assert error.errno == "ENOSPC"
else:
    raise AssertionError
h.shutdown()
"""


def test_nbdsh(daemon, served):
    """What libnbd asks for, in the words of its shell, which belongs to the Python of the system."""
    with attached(daemon, served) as uri:
        run([*SYSTEM, "nbdsh", "--base-allocation", "--uri", uri, "-c", NBDSH])
    assert served.content()[12345:13345] == b"x" * 1000


def test_mirror(tmp_path, daemon, served):
    """What a restore does that begins with the disk afar: copy it away while it is used."""
    target = tmp_path / "target"
    target.write_bytes(b"")
    os.truncate(target, SIZE)
    with attached(daemon, served, read_only=True) as uri, StorageDaemon(tmp_path) as qsd:
        path = uri.partition("socket=")[2]
        server = {"type": "unix", "path": path}
        qsd.run("blockdev-add", driver="nbd", node_name="afar", read_only=True, server=server)
        qsd.run("blockdev-add", driver="file", node_name="here", filename=str(target))
        qsd.run("blockdev-mirror", job_id="job", device="afar", target="here", sync="full")
        qsd.wait_for("BLOCK_JOB_READY")
        qsd.run("job-complete", id="job")
        qsd.wait_for("BLOCK_JOB_COMPLETED")
    assert target.read_bytes() == served.content()


def test_progress(daemon, served):
    with attached(daemon, served) as uri, connected(uri) as nbd:
        nbd.read(0, memoryview(bytearray(MIB)))
        nbd.read(0, memoryview(bytearray(MIB)))
        nbd.write(MIB // 2, memoryview(bytes(MIB)))
        found = info(daemon, served)
        assert found["active"] is True
    wait_until(lambda: info(daemon, served)["active"] is False, "the end")


def test_removal(daemon, served):
    with attached(daemon, served) as uri, connected(uri) as nbd:
        nbd.read(0, memoryview(bytearray(512)))
        status, _ = daemon.control("DELETE", f"/tickets/{served.ticket_id}")
        assert status == 204
        with pytest.raises((ConnectionDead, RequestFailed)):
            nbd.read(0, memoryview(bytearray(512)))


def test_a_full_disk(daemon, tmp_path):
    """The error of the storage comes through, and the connection goes on."""
    with nbdkit("--filter=error", "memory", str(SIZE), "error-pwrite=ENOSPC", "error-pwrite-rate=100%") as path:
        url = daemon.add_ticket(url=f"nbd:unix:{path}", size=SIZE)
        served = Served(url, url.rpartition("/")[2], lambda: b"")
        with attached(daemon, served) as uri, connected(uri) as nbd:
            for length in (512, MIB):
                with pytest.raises(RequestFailed) as failure:
                    nbd.write(0, memoryview(bytes(length)))
                assert failure.value.code == 28
            nbd.read(0, memoryview(bytearray(512)))


def test_a_storage_server_that_dies(daemon, tmp_path):
    """The program is cut, the daemon is not; the program may connect again when the server is back."""
    path, socket = tmp_path / "disk", str(tmp_path / "sock")
    path.write_bytes(b"x" * SIZE)

    def start() -> subprocess.Popen[bytes]:
        command = ["qemu-nbd", "-f", "raw", "--persistent", "--shared=8", f"--socket={socket}", str(path)]
        process = subprocess.Popen(command)
        wait_until(lambda: os.path.exists(socket), "qemu-nbd")
        return process

    process = start()
    try:
        url = daemon.add_ticket(url=f"nbd:unix:{socket}", size=SIZE)
        served = Served(url, url.rpartition("/")[2], path.read_bytes)
        with attached(daemon, served) as uri:
            nbd = connected(uri)
            nbd.read(0, memoryview(bytearray(512)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.unlink(socket)
            with pytest.raises((ConnectionDead, RequestFailed)):
                nbd.read(0, memoryview(bytearray(512)))
            nbd.close()
            process = start()
            with connected(uri) as again:
                view = memoryview(bytearray(512))
                again.read(0, view)
                assert view == b"x" * 512
    finally:
        process.kill()
        process.wait()


def test_an_idle_client_does_not_delay_the_end(tmp_path):
    """The daemon ends by itself, long before its grace is over."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(SIZE))
    settings = "[daemon]\ndrain_timeout = 600\n"
    with real_daemon.running(tmp_path / "daemon", settings) as running:
        url = running.add_ticket(url=f"file://{path}", size=SIZE)
        served = Served(url, url.rpartition("/")[2], path.read_bytes)
        with attached(running, served) as uri, connected(uri) as nbd:
            nbd.read(0, memoryview(bytearray(512)))
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(DEADLINE) == 0
