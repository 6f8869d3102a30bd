"""/images/TICKET?format=qcow2 over disks in memory: an image with a length, a validator and ranges of its own."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import pytest
from fakes.imageserver import ImageServer
from fakes.waiting import wait_until

from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.geometry.qcow2 import MAX_DISK
from ovirt_imageio.handlers.representation import MAKERS

CLUSTER = 64 * 1024
SIZE = 10 * CLUSTER
DISK = bytes(3 * CLUSTER) + b"\xdd" * CLUSTER + bytes(6 * CLUSTER)
EXTENTS = [
    ZeroExtent(0, 3 * CLUSTER, True, True),
    ZeroExtent(3 * CLUSTER, CLUSTER, False, False),
    ZeroExtent(4 * CLUSTER, 6 * CLUSTER, True, True),
]
# The header, the refcount table, a refcount block, an L1 table, an L2 table, and the data.
LENGTH = 6 * CLUSTER
PATH = "/images/x?format=qcow2"


class Sparse:
    """A disk that tells what it has."""

    def __init__(self, content, writable=False):
        self.content = content
        self.writable = writable

    def __call__(self):
        return MemoryBackend(self.content, writable=self.writable, extents={"zero": EXTENTS})


class Huge(MemoryBackend):
    """Says so; none of it is read."""

    def size(self):
        return MAX_DISK + 1


class Crumbs(MemoryBackend):
    """Every other 8 bytes are data; no two extents are one."""

    def extents(self, context="zero", offset=0, length=None):
        return (ZeroExtent(start, 8, start % 16 == 0, False) for start in range(0, SIZE, 8))


@pytest.fixture
def server(image_server, tmp_path):
    with image_server(tmp_path) as server:
        server.add("x", Sparse(bytearray(DISK), writable=True), size=SIZE, ops=["read", "write"], filename="disk.raw")
        yield server


def test_get(server):
    answer = server.request("GET", PATH)
    assert answer.status == 200
    assert answer.headers["content-length"] == str(len(answer.body)) == str(LENGTH)
    assert answer.headers["content-disposition"] == "attachment; filename=disk.qcow2"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.body[:4] == b"QFI\xfb"
    assert answer.body[-CLUSTER:] == b"\xdd" * CLUSTER


def test_head(server):
    answer = server.request("HEAD", PATH)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(LENGTH)
    assert answer.headers["etag"] == server.request("GET", PATH).headers["etag"]


def test_raw_is_what_everybody_gets(server):
    asked = server.request("GET", "/images/x?format=raw")
    assert asked.body == server.request("GET", "/images/x").body == DISK
    assert asked.headers["etag"] != server.request("HEAD", PATH).headers["etag"]


@pytest.mark.parametrize("spec, start, stop", [("0-", 0, LENGTH), ("5-9", 5, 10), ("-100000", LENGTH - 100000, LENGTH)])
def test_ranges(server, spec, start, stop):
    whole = server.request("GET", PATH)
    part = server.request("GET", PATH, {"range": f"bytes={spec}", "if-range": whole.headers["etag"]})
    assert (part.status, part.body) == (206, whole.body[start:stop])
    assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{LENGTH}"


def test_a_range_behind_the_image(server):
    answer = server.request("GET", PATH, {"range": f"bytes={LENGTH}-"})
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{LENGTH}"


def test_a_disk_that_was_written_is_another_image(server):
    """The rest of the old image would not fit to the beginning of the new one: it is sent as a whole."""
    tag = server.request("HEAD", PATH).headers["etag"]
    assert server.request("PUT", "/images/x", {"content-range": "bytes 0-0/*"}, b"x").status == 200
    answer = server.request("GET", PATH, {"range": "bytes=5-", "if-range": tag})
    assert answer.status == 200
    assert answer.headers["etag"] != tag


@pytest.mark.parametrize("name, called", [("a.IMG", "a.qcow2"), ("a.b", "a.b.qcow2"), ("a.qcow2", "a.qcow2")])
def test_names(server, name, called):
    server.add("named", b"", filename=name)
    disposition = server.request("HEAD", "/images/named?format=qcow2").headers["content-disposition"]
    assert disposition == f"attachment; filename={called}"


def test_a_disk_without_a_name(server):
    server.add("unnamed", b"")
    assert server.request("HEAD", "/images/unnamed?format=qcow2").headers["content-disposition"] == "attachment"


@pytest.mark.parametrize("format", ["vmdk", "", "QCOW2"])
def test_other_formats_are_refused(server, format):
    answer = server.request("GET", f"/images/x?format={format}")
    assert answer.status == 400
    assert b"one of qcow2, raw" in answer.body


def test_a_disk_that_is_too_large(server):
    server.add("huge", Huge, size=MAX_DISK + 1)
    answer = server.request("GET", "/images/huge?format=qcow2")
    assert answer.status == 400
    assert b"too large" in answer.body


def test_a_disk_of_crumbs_takes_no_memory():
    """A proxy gets as many extents as an origin likes to tell: 80,000 would take 10 MiB."""
    backend = Crumbs(bytes(SIZE))
    ticket = SimpleNamespace(filename=None)
    disk = SimpleNamespace(
        size=SIZE, content_tag="tag", ticket=ticket, backend=backend, run=lambda operation: operation.run()
    )
    tracemalloc.start()
    try:
        found = MAKERS["qcow2"](disk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.length == SIZE + 5 * CLUSTER
    assert peak < 2 * 1024**2


def test_what_was_read_counts_as_transferred(server):
    server.add("y", Sparse(DISK), size=SIZE)
    server.request("GET", "/images/y?format=qcow2")
    # The client has everything before the server has looked what it moved.
    wait_until(lambda: server.store.info("y")["transferred"] == CLUSTER)


def test_it_needs_a_ticket(server: ImageServer):
    assert server.request("GET", "/images/unknown?format=qcow2").status == 403
