"""The client library when things break: connections that are cut, servers that end, transfers that are resumed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes.chaos import ChaosProxy
from fakes.waiting import DEADLINE, wait_until
from real import daemon

from ovirt_imageio import client
from ovirt_imageio.client import ways
from ovirt_imageio.client.copy import pace
from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage

MiB = 1024**2
SIZE = 48 * MiB
DATA = 24 * (MiB + 64 * 1024)
# Nothing goes around the proxy; the log tells of each request.
NO_UNIX = "[local]\nenable = false\n[logger_root]\nlevel = DEBUG\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[daemon.Daemon]:
    with daemon.running(tmp_path_factory.mktemp("daemon"), NO_UNIX) as running:
        yield running


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without a pause worth waiting for."""
    monkeypatch.setattr(pace, "BACKOFF", 0.001)


@pytest.fixture(params=["HTTP", "NBD"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Go this way, however long the pieces are."""
    monkeypatch.setattr(ways, "SMALL", {"HTTP": 0, "NBD": 2**63}[request.param])
    return str(request.param)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with random data and holes."""
    path = tmp_path / "source.raw"
    dice = random.Random(1)
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for start in range(0, SIZE, SIZE // 24):
            file.seek(start)
            file.write(dice.randbytes(DATA // 24))
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    img.create(str(path), "qcow2", SIZE)
    return path


def through(url: str, proxy: ChaosProxy) -> str:
    """Return the URL of the same image through a proxy."""
    return f"https://localhost:{proxy.port}/images/{url.rpartition('/')[2]}"


def compare(one: Path, two: Path) -> None:
    done = subprocess.run(["qemu-img", "compare", str(one), str(two)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Interrupt(Exception):
    pass


def stop_after(limit: int):
    """Return a progress that raises after so many bytes."""
    done = 0

    def update(count: int) -> None:
        nonlocal done
        done += count
        if done > limit:
            raise Interrupt

    return update


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_upload_survives_cuts(served, way, image, disk, seed, hard):
    dice = random.Random(seed)
    cuts = [dice.randrange(1, 6 * MiB) for _ in range(8)]
    counted: list[int] = []
    with QemuNbd(str(disk), "qcow2") as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        with ChaosProxy(("localhost", served.port), cuts, hard) as proxy:
            client.upload(str(image), through(url, proxy), served.ca_file, progress=counted.append, retries=20)
            assert proxy.cut >= 2
    compare(image, disk)
    assert sum(counted) == SIZE


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("seed", range(2))
def test_download_survives_cuts(served, way, image, tmp_path, seed, fmt):
    dice = random.Random(seed)
    cuts = [dice.randrange(1, 6 * MiB) for _ in range(8)]
    counted: list[int] = []
    copy = tmp_path / "copy"
    with QemuNbd(str(image), "raw", read_only=True) as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE, ops=["read"])
        with ChaosProxy(("localhost", served.port), cuts) as proxy:
            settings = {"progress": counted.append, "retries": 20, "fmt": fmt}
            client.download(through(url, proxy), str(copy), served.ca_file, **settings)
            assert proxy.cut >= 2
    compare(image, copy)
    assert sum(counted) == SIZE


def test_without_retries_a_cut_is_an_error(served, way, image, tmp_path):
    with QemuNbd(str(image), "raw", read_only=True) as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        with ChaosProxy(("localhost", served.port), [5 * MiB] * 8) as proxy, pytest.raises(client.BackendUnavailable):
            client.download(through(url, proxy), str(tmp_path / "copy"), served.ca_file, retries=0)
    assert not (tmp_path / "copy").exists()


def test_ticket_that_is_canceled_ends_the_upload(served, way, image, disk):
    with QemuNbd(str(disk), "qcow2") as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        moved: list[int] = []

        def cancel(count: int) -> None:
            moved.append(count)
            if len(moved) == 3:
                served.control("DELETE", f"/tickets/{url.rpartition('/')[2]}?timeout=0")

        with pytest.raises(client.ServerError) as error:
            client.upload(str(image), url, served.ca_file, progress=cancel, max_workers=1, retries=2)
    assert error.value.code == 403
    assert url.rpartition("/")[2] not in str(error.value)


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_download_resumes(served, way, image, tmp_path, fmt, monkeypatch):
    monkeypatch.setattr("ovirt_imageio.client.copy.engine.CHECKPOINT", 4 * MiB)
    copy = tmp_path / "copy"
    state = tmp_path / "copy.resume"
    with QemuNbd(str(image), "raw", read_only=True) as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE, ops=["read"])
        settings = {"fmt": fmt, "resume": True, "max_workers": 1}
        with pytest.raises(Interrupt):
            client.download(url, str(copy), served.ca_file, progress=stop_after(SIZE - DATA // 2), **settings)
        assert copy.exists()
        assert url.rpartition("/")[2] not in state.read_text()
        # Another transfer of the same disk.
        again = served.add_ticket(url=nbd.url, size=SIZE, ops=["read"])
        # What was asked for ahead, and is not read any more, counts for the first download.
        served.wait_log("CLOSE connection=", count=served.log().count("OPEN connection="))
        before = requested(served, "READ")
        client.download(again, str(copy), served.ca_file, verify=True, **settings)
        # Somewhat more than a half of the data, and what was under way when the first one ended.
        assert 0 < requested(served, "READ") - before < DATA * 8 // 10
    compare(image, copy)
    assert not state.exists()


def requested(running: daemon.Daemon, operation: str) -> int:
    """Return how many bytes the daemon was asked to read or write; by NBD, where one test does but one of both."""
    return sum(int(a or b) for a, b in re.findall(rf"\b{operation} size=(\d+) |: nbd, (\d+) bytes done", running.log()))


def test_download_starts_over_when_the_disk_changed(served, way, image, tmp_path, monkeypatch):
    monkeypatch.setattr("ovirt_imageio.client.copy.engine.CHECKPOINT", 4 * MiB)
    copy = tmp_path / "copy"
    settings = {"fmt": "raw", "resume": True, "max_workers": 1}
    with QemuNbd(str(image), "raw", read_only=True) as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        with pytest.raises(Interrupt):
            client.download(url, str(copy), served.ca_file, progress=stop_after(SIZE - DATA // 2), **settings)
    image.write_bytes(random.Random(2).randbytes(SIZE))
    with QemuNbd(str(image), "raw", read_only=True) as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        client.download(url, str(copy), served.ca_file, **settings)
    compare(image, copy)


def test_upload_resumes_on_a_server_that_was_killed(way, image, disk, tmp_path, monkeypatch):
    monkeypatch.setattr("ovirt_imageio.client.copy.engine.CHECKPOINT", 4 * MiB)
    settings = {"resume": True, "max_workers": 1}
    journal = tmp_path / "source.raw.resume"
    with QemuNbd(str(disk), "qcow2") as nbd:
        with daemon.running(tmp_path, NO_UNIX) as running:
            url = running.add_ticket(url=nbd.url, size=SIZE)
            done: list[int] = []

            def kill(count: int) -> None:
                done.append(count)
                # What is under way ends before the first flush: by NBD that may be half of it.
                if sum(done) > SIZE // 2 and journal.exists() and running.process.poll() is None:
                    running.process.kill()
                    running.process.wait()

            with pytest.raises(client.BackendUnavailable):
                client.upload(str(image), url, running.ca_file, progress=kill, retries=2, **settings)
        assert json.loads(journal.read_text())["done"]
        with daemon.running(tmp_path, NO_UNIX) as running:
            url = running.add_ticket(url=nbd.url, size=SIZE)
            client.upload(str(image), url, running.ca_file, verify=True, **settings)
            # By NBD zeroes count, too.
            assert 0 < requested(running, "WRITE") < (SIZE if way == "NBD" else DATA) * 8 // 10
    compare(image, disk)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_connections_than_workers(served, way, image, disk, tmp_path, workers):
    with QemuNbd(str(disk), "qcow2") as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        with ChaosProxy(("localhost", served.port)) as proxy:
            client.upload(str(image), through(url, proxy), served.ca_file, max_workers=workers)
            assert proxy.accepted <= workers
        with ChaosProxy(("localhost", served.port)) as proxy:
            copy = str(tmp_path / "copy")
            client.download(through(url, proxy), copy, served.ca_file, max_workers=workers)
            assert proxy.accepted <= workers
    compare(image, tmp_path / "copy")


def test_many_downloads_at_once(served, image, tmp_path):
    with QemuNbd(str(image), "raw", read_only=True, shared=40) as nbd, ThreadPoolExecutor(10) as pool:
        urls = [served.add_ticket(url=nbd.url, size=SIZE, ops=["read"]) for _ in range(10)]
        copies = [tmp_path / f"copy-{number}" for number in range(10)]
        jobs = [
            pool.submit(client.download, url, str(copy), served.ca_file, fmt="raw") for url, copy in zip(urls, copies)
        ]
        for job in jobs:
            job.result(60)
    for copy in copies:
        assert copy.read_bytes() == image.read_bytes()


def test_image_that_is_cut_off(served, way, image, disk, tmp_path):
    whole, cut = tmp_path / "whole.qcow2", tmp_path / "cut.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(image), str(whole)], check=True)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    with QemuNbd(str(disk), "qcow2") as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        # What is missing reads as zero, or as an error, as qemu likes; but it never passes as the whole image.
        try:
            client.upload(str(cut), url, served.ca_file)
        except client.Error:
            return
    done = subprocess.run(["qemu-img", "compare", str(cut), str(disk)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


CTRL_C = """
import sys
from ovirt_imageio import client
client.{call}
"""


@pytest.mark.parametrize("call", ["upload(*sys.argv[1:4], progress=print)", "download(*sys.argv[1:4], progress=print)"])
@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6])
@pytest.mark.slow
def test_ctrl_c_leaves_nothing(served, image, disk, tmp_path, call, moment):
    """Interrupt a program of its own at some moment: from before its first byte to the middle of the copy."""
    folder = Path(tempfile.mkdtemp(prefix="ic-"))
    with QemuNbd(str(disk), "qcow2") as nbd:
        url = served.add_ticket(url=nbd.url, size=SIZE)
        source = disk if call.startswith("upload") else image
        arguments = [str(source), url] if call.startswith("upload") else [url, str(tmp_path / "copy")]
        environ = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(daemon.ROOT)}
        code = CTRL_C.format(call=call)
        with subprocess.Popen([sys.executable, "-c", code, *arguments, served.ca_file], env=environ) as process:
            deadline = time.monotonic() + moment
            while time.monotonic() < deadline and process.poll() is None:
                pass
            process.send_signal(signal.SIGINT)
            status = process.wait(DEADLINE)
    assert status in (0, 1, 130, -signal.SIGINT)
    if (tmp_path / "copy").exists():
        # It was complete.
        compare(disk, tmp_path / "copy")
    # A qemu-nbd that ended with its parent may show for a moment.
    wait_until(lambda: not os.listdir(folder), lambda: os.listdir(folder))
    wait_until(lambda: str(folder) not in running_programs(), running_programs)
    folder.rmdir()


def running_programs() -> str:
    return subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
