"""The real daemon on files: uploads that are cut and resumed, disks that are full or broken, writers side by side."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import DEADLINE, wait_until
from real import daemon, faulty, loop

MIB = 1024**2


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[daemon.Daemon]:
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def put(running: daemon.Daemon, url: str, data: bytes, offset: int = 0) -> None:
    """Upload data at offset."""
    headers = {"Content-Range": f"bytes {offset}-{offset + len(data) - 1}/*"}
    request = urllib.request.Request(url, data, headers, method="PUT")
    urllib.request.urlopen(request, context=running.tls, timeout=DEADLINE).close()


def info(running: daemon.Daemon, url: str) -> dict[str, Any]:
    """Return what is known about the ticket."""
    status, body = running.control("GET", f"/tickets/{url.rpartition('/')[2]}")
    assert status == 200
    document: dict[str, Any] = json.loads(body)
    return document


@pytest.mark.slow
def test_kill_and_resume(tmp_path):
    """Whatever was reported as transferred survives kill -9; the rest is sent to the next daemon."""
    data = os.urandom(8 * MIB)
    disk = tmp_path / "disk"
    disk.touch()
    ticket = {"url": f"file://{disk}", "size": len(data), "ops": ["write"]}
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with daemon.running(tmp_path / "first") as first:
        url = first.add_ticket(**ticket)
        with contextlib.closing(first.connect()) as connection:
            connection.putrequest("PUT", url.partition(str(first.port))[2])
            connection.putheader("Content-Length", str(len(data)))
            connection.endheaders()
            connection.send(data[: 5 * MIB + 1000])
            wait_until(lambda: info(first, url)["transferred"] >= 4 * MIB, lambda: info(first, url))
            done = info(first, url)["transferred"]
            first.stop(signal.SIGKILL)
    assert disk.read_bytes()[:done] == data[:done]
    with daemon.running(tmp_path / "second") as second:
        put(second, second.add_ticket(**ticket), data[done:], offset=done)
    assert disk.read_bytes() == data


@pytest.mark.storage
@pytest.mark.skipif(not loop.available(), reason="needs root, for loop devices")
def test_full_disk(running, tmp_path):
    data = os.urandom(16 * MIB)
    with loop.mounted(tmp_path, "ext4", size=8 * MIB) as folder:
        (folder / "disk").touch()
        url = running.add_ticket(url=f"file://{folder}/disk", size=len(data), ops=["write"])
        with contextlib.closing(running.connect_unix(running.local_socket)) as connection:
            status, text = put_all(connection, url.partition(str(running.port))[2], data)
        assert status == 507
        assert "No space left on device" in text
        assert str(folder) not in text
        # What the ticket counted is on the disk.
        done = info(running, url)["transferred"]
        assert 0 < done < 8 * MIB
        assert (folder / "disk").read_bytes()[:done] == data[:done]
        assert "No space left on device" in info(running, url)["last_error"]
        # Let go of the disk, to unmount it.
        running.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")


def put_all(connection: http.client.HTTPConnection, path: str, data: bytes) -> tuple[int, str]:
    """Upload, though the server may answer before it has read all."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("PUT", path, data)
    response = connection.getresponse()
    return response.status, response.read().decode()


@pytest.mark.storage
@pytest.mark.skipif(not faulty.available(), reason="needs root, nbdfuse and nbdkit")
def test_broken_disk(running, tmp_path):
    data = os.urandom(2 * MIB)
    with faulty.file(tmp_path) as disk:
        url = running.add_ticket(url=f"file://{disk.path}", size=disk.size)
        put(running, url, data)
        disk.fail()
        for method, body in (("PUT", data), ("GET", None)):
            request = urllib.request.Request(url, body, method=method)
            with pytest.raises(urllib.error.HTTPError) as e:
                urllib.request.urlopen(request, context=running.tls, timeout=DEADLINE)
            with e.value:
                assert e.value.code == 500
                assert "Input/output error" in e.value.read().decode()
        disk.mend()
        with urllib.request.urlopen(url, context=running.tls, timeout=DEADLINE) as response:
            assert response.read(len(data)) == data
            response.read()
        running.control("DELETE", f"/tickets/{url.rpartition('/')[2]}")


@pytest.mark.parametrize("make,text", [(Path.mkdir, "Not a regular file"), (os.mkfifo, "Not a regular file")])
def test_not_a_disk(running, tmp_path, make, text):
    make(tmp_path / "disk")
    url = running.add_ticket(url=f"file://{tmp_path}/disk", size=MIB)
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(url, context=running.tls, timeout=DEADLINE)
    with e.value:
        assert e.value.code == 500
        assert text in e.value.read().decode()


def test_two_writers_of_one_block(running, tmp_path):
    """Connections that write the two halves of each block, at the same time, lose nothing."""
    count, half = 50, 2048
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(count * 2 * half))
    url = running.add_ticket(url=f"file://{disk}", size=count * 2 * half)

    def write(side: int) -> None:
        with contextlib.closing(running.connect_unix(running.local_socket)) as connection:
            for number in range(count):
                start = (2 * number + side) * half
                headers = {"Content-Range": f"bytes {start}-{start + half - 1}/*"}
                connection.request(
                    "PUT", url.partition(str(running.port))[2] + "?flush=n", bytes([number + 1]) * half, headers
                )
                assert connection.getresponse().read() == b""

    threads = [threading.Thread(target=write, args=(side,)) for side in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert disk.read_bytes() == b"".join(bytes([number + 1]) * 2 * half for number in range(count))
