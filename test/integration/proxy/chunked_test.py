"""Uploads of unknown length through a proxy: its answer is what the host made of them."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest

pytest.importorskip("cryptography")

from real import loop
from real.nbd import nbdkit
from real.proxy import MIB, Image

SIZE = 8 * MIB

needs_nbdkit = pytest.mark.skipif(shutil.which("nbdkit") is None, reason="nbdkit is not installed")


def upload(server, path, length, headers=None):
    """Upload in chunks; return status and words."""
    with contextlib.closing(server.connect()) as connection:
        # A server that refuses may answer before it has read all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("PUT", path, chunks(length), headers or {})
        response = connection.getresponse()
        return response.status, response.read()


def chunks(length, step=100_000):
    """Yield the pieces of a body whose length is not told."""
    for start in range(0, length, step):
        yield b"x" * min(step, length - start)


def offer(host, proxy, url, size=SIZE):
    """Let host and proxy serve a disk; return the two paths."""
    at_host = host.add_ticket(url=url, size=size)
    at_proxy = proxy.add_ticket(url=at_host, size=size)
    return ["/images/" + found.rpartition("/")[2] for found in (at_host, at_proxy)]


@needs_nbdkit
@pytest.mark.parametrize("flush", ["y", "n"])
@pytest.mark.parametrize("length", [1000, MIB, MIB + 1, 3 * MIB, SIZE])
@pytest.mark.parametrize("name,status", [("EIO", 500), ("ENOSPC", 507)])
def test_host_that_cannot_write(any_host, proxy, name, status, length, flush):
    with nbdkit("--filter=error", "memory", str(SIZE), f"error-pwrite={name}", "error-pwrite-rate=1") as path:
        for server, where in zip((any_host, proxy), offer(any_host, proxy, f"nbd:unix:{path}")):
            found, words = upload(server, f"{where}?flush={flush}", length)
            assert found == status, (server.folder, words)


@pytest.mark.storage
@pytest.mark.skipif(not loop.available(), reason="needs root, for loop devices")
@pytest.mark.parametrize("flush", ["y", "n"])
def test_full_disk(any_host, proxy, tmp_path, flush):
    with loop.mounted(tmp_path, "ext4", size=SIZE) as folder:
        (folder / "disk").touch()
        paths = offer(any_host, proxy, f"file://{folder}/disk", 2 * SIZE)
        for server, where in zip((any_host, proxy), paths):
            status, words = upload(server, f"{where}?flush={flush}", 2 * SIZE)
            assert status == 507, (server.folder, words)
        # Let go of the disk, to unmount it.
        any_host.control("DELETE", paths[0].replace("images", "tickets"))


@needs_nbdkit
@pytest.mark.parametrize("is_chunked", [True, False])
def test_what_the_host_did_not_store_is_not_counted(host, proxy, is_chunked):
    """An upload that is resumed begins where the count says that the last one ended."""
    with nbdkit("--filter=error", "memory", str(SIZE), "error-pwrite=EIO", "error-pwrite-rate=1") as path:
        url = host.add_ticket(url=f"nbd:unix:{path}", size=SIZE, ops=["write"])
        where = "/images/" + proxy.add_ticket(url=url, size=SIZE, ops=["write"]).rpartition("/")[2]
        headers = {} if is_chunked else {"Content-Length": str(SIZE)}
        assert upload(proxy, where, SIZE, headers)[0] == 500
        assert told(proxy, where)["transferred"] == told(host, url)["transferred"] == 0
        assert "Input/output error" in told(proxy, where)["last_error"]


def test_what_the_host_stored_is_counted(any_host, proxy, tmp_path):
    image = Image(any_host, tmp_path, bytes(SIZE), ops=["write"])
    path = image.offer(proxy, ops=["write"])
    assert upload(proxy, path, 3 * MIB)[0] == 200
    assert told(proxy, path)["transferred"] == 3 * MIB
    assert upload(proxy, path, SIZE, {"Content-Length": str(SIZE)})[0] == 200
    assert told(proxy, path)["transferred"] == SIZE


def told(server, path):
    """Return what the control service tells about a ticket."""
    status, body = server.control("GET", f"/tickets/{path.rpartition('/')[2]}")
    assert status == 200
    return json.loads(body)


@pytest.mark.parametrize("length", [0, 1000, MIB, MIB + 1, 3 * MIB, SIZE - 10])
def test_good_upload_leaves_no_warning(any_host, proxy, tmp_path, length):
    image = Image(any_host, tmp_path, bytes(SIZE))
    before = len(any_host.log())
    assert upload(proxy, image.offer(proxy), length, {"Content-Range": "bytes 10-*/*"}) == (200, b"")
    assert image.content == bytes(10) + b"x" * length + bytes(SIZE - 10 - length)
    assert "WARN" not in any_host.log()[before:]


def test_more_than_fits(any_host, proxy, tmp_path):
    image = Image(any_host, tmp_path, bytes(SIZE))
    for server, path in ((any_host, f"/images/{image.id}"), (proxy, image.offer(proxy))):
        assert upload(server, path, SIZE, {"Content-Range": "bytes 10-*/*"})[0] == 416
