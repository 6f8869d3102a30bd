"""/images/TICKET/checksum: what may be asked for, and the answer."""

from __future__ import annotations

import pytest
from fakes.imageserver import ImageServer, ProxyServer

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.ops import checksum


@pytest.fixture
def server(image_server, tmp_path):
    with image_server(tmp_path) as server:
        server.add("disk", b"data" + bytes(3 * 1024**2 - 4))
        yield server


def test_the_default(server):
    assert server.request("GET", "/images/disk/checksum").json() == {
        "algorithm": "blake2b",
        "block_size": 4194304,
        "checksum": "42f3b76772a6d3dcffae2a24697721687975e2c60ddfd4ba7831ea9ce772ca71",
    }


@pytest.mark.parametrize("block_size", [1024**2, 16 * 1024**2, 1024**2 + 4096])
def test_options(server, block_size):
    answer = server.request("GET", f"/images/disk/checksum?algorithm=sha256&block_size={block_size}").json()
    operation = checksum.Checksum(MemoryBackend(server.disks["disk"]), "sha256", block_size)
    operation.run()
    assert answer == {"algorithm": "sha256", "block_size": block_size, "checksum": operation.result}


def test_the_first_bytes(server):
    """What a client wrote before it was cut can be compared before it goes on."""
    answer = server.request("GET", "/images/disk/checksum?length=1048576").json()
    operation = checksum.Checksum(MemoryBackend(b"data" + bytes(1024**2 - 4)))
    operation.run()
    assert answer["checksum"] == operation.result


def test_more_bytes_than_there_are(server):
    answer = server.request("GET", f"/images/disk/checksum?length={3 * 1024**2 + 1}")
    assert answer.status == 416


@pytest.mark.parametrize(
    "query",
    [
        "algorithm=",
        "algorithm=shake_128",
        "algorithm=SHA1",
        "block_size=",
        "block_size=1048575",
        "block_size=1048577",
        "block_size=16781312",
        "block_size=-4194304",
        "block_size=4M",
        "length=-1",
        "length=1M",
    ],
)
def test_malformed(server, query):
    assert server.request("GET", f"/images/disk/checksum?{query}").status == 400


def test_an_unknown_algorithm_is_told_the_known_ones(server):
    assert b"blake2b" in server.request("GET", "/images/disk/checksum?algorithm=x").body


def test_it_counts_as_transferred(server):
    server.request("GET", "/images/disk/checksum")
    info = server.store.info("disk")
    assert info["transferred"] == 3 * 1024**2
    assert not info["active"]


def test_a_disk_that_fails(server):
    class Failing(MemoryBackend):
        def readinto(self, offset, view):
            raise errors.StorageError("read", "Input/output error", 5)

    server.add("failing", lambda: Failing(bytearray(10)), size=10)
    answer = server.request("GET", "/images/failing/checksum")
    assert answer.status == 500
    assert b"Input/output error" in answer.body


def test_an_unknown_ticket(server):
    assert server.request("GET", "/images/unknown/checksum").status == 403


@pytest.mark.parametrize("ticket", ["disk", "unknown", ""])
def test_algorithms_need_no_ticket(server, ticket):
    answer = server.request("GET", f"/images/{ticket}/checksum/algorithms")
    assert (answer.status, answer.json()) == (200, {"algorithms": list(checksum.algorithms())})


# --- A ticket that is smaller than the disk ---

SIZE = 1024**2 + 1000
CONTENT = bytes(range(256)) * 8192


def expected(data):
    operation = checksum.Checksum(MemoryBackend(data), block_size=1024**2)
    operation.run()
    return operation.result


def test_it_ends_where_the_ticket_does(server):
    server.add("part", CONTENT, size=SIZE)
    answer = server.request("GET", "/images/part/checksum?block_size=1048576")
    assert answer.json()["checksum"] == expected(CONTENT[:SIZE])


def test_a_proxy_digests_no_more_than_its_own_ticket_permits(tmp_path):
    with ProxyServer(tmp_path) as server:
        server.add("part", CONTENT)
        ImageServer.add(server, "part", CONTENT, size=SIZE)
        answer = server.request("GET", "/images/part/checksum?block_size=1048576")
        assert answer.json()["checksum"] == expected(CONTENT[:SIZE])
