"""/images/TICKET/extents: the whole disk, pages of it, and why there are none."""

from __future__ import annotations

import json
import threading

import pytest
from fakes import nbdpeer
from fakes.imageserver import ImageServer, ProxyServer
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.backends.file import FileBackend
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.nbd import NBDBackend
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.ops import operations

ZERO = [ZeroExtent(0, 100, False, False), ZeroExtent(100, 100, True, False), ZeroExtent(200, 56, True, True)]
DIRTY = [DirtyExtent(0, 50, True, False), DirtyExtent(50, 206, False, True)]


def disk():
    return MemoryBackend(bytearray(256), extents={"zero": ZERO, "dirty": DIRTY})


@pytest.fixture
def server(image_server, tmp_path):
    with image_server(tmp_path) as server:
        server.add("full", disk, size=256)
        server.add("backup", disk, size=256, dirty=True)
        yield server


def as_json(extents):
    return [extent._asdict() for extent in extents]


@pytest.mark.parametrize("query", ["", "?context=zero", "?future=1"])
def test_zero_extents(server, query):
    answer = server.request("GET", "/images/full/extents" + query)
    assert (answer.status, answer.json()) == (200, as_json(ZERO))
    assert answer.headers["content-type"] == "application/json"
    assert answer.body.endswith(b"]\n")


def test_dirty_extents(server):
    assert server.request("GET", "/images/backup/extents?context=dirty").json() == as_json(DIRTY)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("offset=0&length=256", [(0, 100), (100, 100), (200, 56)]),
        ("offset=50", [(50, 50), (100, 100), (200, 56)]),
        ("length=150", [(0, 100), (100, 50)]),
        ("offset=150&length=60", [(150, 50), (200, 10)]),
        ("offset=250&length=1000000", [(250, 6)]),
        ("limit=2", [(0, 100), (100, 100)]),
        ("offset=100&limit=1", [(100, 100)]),
        ("limit=0", []),
        ("offset=256", []),
        ("length=0", []),
    ],
)
def test_a_page(server, query, expected):
    extents = server.request("GET", f"/images/full/extents?{query}").json()
    assert [(extent["start"], extent["length"]) for extent in extents] == expected


def test_a_page_beyond_the_disk(server):
    answer = server.request("GET", "/images/full/extents?offset=257")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */256")


@pytest.mark.parametrize(
    "query", ["context=", "context=hole", "offset=-1", "length=x", "limit=1.5", "offset=9999999999999999999999"]
)
def test_malformed(server, query):
    assert server.request("GET", f"/images/full/extents?{query}").status == 400


def test_dirty_extents_that_the_ticket_does_not_allow(server):
    answer = server.request("GET", "/images/full/extents?context=dirty")
    assert answer.status == 404
    assert b"dirty" in answer.body


def test_dirty_extents_that_the_storage_does_not_have(server):
    server.add("plain", bytearray(10), dirty=True)
    assert server.request("GET", "/images/plain/extents?context=dirty").status == 404


def test_an_unknown_ticket_comes_before_a_bad_query(server):
    answer = server.request("GET", "/images/unknown/extents?context=hole")
    assert answer.status == 403
    assert answer.closed


def test_an_empty_disk(server):
    server.add("empty", b"")
    assert server.request("GET", "/images/empty/extents").json() == []


def test_many_extents_are_one_array(server):
    count = 3 * operations.Extents.BATCH + 1
    extents = [ZeroExtent(i, 1, i % 2 == 0, False) for i in range(count)]
    server.add("many", lambda: MemoryBackend(bytearray(count), extents={"zero": extents}), size=count)
    assert server.request("GET", "/images/many/extents").json() == as_json(extents)


def test_the_answer_starts_before_the_listing_ends(server):
    go_on = threading.Event()

    class Slow(MemoryBackend):
        def extents(self, context="zero", offset=0, length=None):
            def walk():
                yield from ZERO[:2]
                assert go_on.wait(DEADLINE)
                yield ZERO[2]

            return walk()

    server.add("slow", lambda: Slow(bytearray(256)), size=256)
    with server.connect() as connection:
        connection.request("GET", "/images/slow/extents")
        response = connection.getresponse()
        assert response.read(1) == b"["
        assert server.store.info("slow")["active"]
        go_on.set()
        assert json.loads(b"[" + response.read()) == as_json(ZERO)


def test_a_listing_is_canceled_with_its_ticket(server):
    class Endless(MemoryBackend):
        def extents(self, context="zero", offset=0, length=None):
            return (ZeroExtent(i, 1, bool(i % 2), False) for i in iter(int, 1))

    server.add("endless", lambda: Endless(bytearray(256)), size=256)
    with server.connect() as connection:
        connection.request("GET", "/images/endless/extents")
        response = connection.getresponse()
        assert response.read(1) == b"["
        server.store.remove("endless", DEADLINE)
        with pytest.raises(Exception, match=r"Incomplete|reset"):
            while response.read(2**20):
                pass


def test_an_error_in_the_middle_ends_the_connection(server):
    class Failing(MemoryBackend):
        def extents(self, context="zero", offset=0, length=None):
            yield from (ZeroExtent(i, 1, bool(i % 2), False) for i in range(operations.Extents.BATCH))
            raise errors.StorageError("list extents", "Input/output error", 5)

    server.add("failing", lambda: Failing(bytearray(1024)), size=1024)
    with server.connect() as connection:
        connection.request("GET", "/images/failing/extents")
        with pytest.raises(Exception, match="Incomplete"):
            connection.getresponse().read()


# --- A ticket that is smaller than the disk ---


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [(0, 100), (100, 50)]),
        ("offset=120", [(120, 30)]),
        ("offset=120&length=1000", [(120, 30)]),
        ("offset=150", []),
    ],
)
def test_extents_end_where_the_ticket_does(server, query, expected):
    server.add("part", disk, size=150, dirty=True)
    answer = server.request("GET", f"/images/part/extents?{query}")
    assert answer.status == 200
    assert [(extent["start"], extent["length"]) for extent in answer.json()] == expected


def test_dirty_extents_end_where_the_ticket_does(server):
    server.add("part", disk, size=150, dirty=True)
    answer = server.request("GET", "/images/part/extents?context=dirty")
    assert [(extent["start"], extent["length"]) for extent in answer.json()] == [(0, 50), (50, 100)]


def test_extents_beyond_the_ticket(server):
    server.add("part", disk, size=150)
    answer = server.request("GET", "/images/part/extents?offset=151")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */150")


def test_extents_of_a_proxy_end_where_its_own_ticket_does(tmp_path):
    with ProxyServer(tmp_path) as server:
        server.add("part", disk, size=256)
        ImageServer.add(server, "part", disk, size=150)
        assert server.request("GET", "/images/part/extents").json() == as_json(
            [ZeroExtent(0, 100, False, False), ZeroExtent(100, 50, True, False)]
        )


def test_extents_of_a_file_end_where_the_ticket_does(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 8192)
    with ImageServer(tmp_path) as server:
        server.add("part", lambda: FileBackend(str(path), writable=False), size=5000)
        [extent] = server.request("GET", "/images/part/extents").json()
        assert (extent["start"], extent["length"]) == (0, 5000)


def test_extents_of_an_nbd_export_end_where_the_ticket_does(tmp_path):
    def script(call):
        call.negotiate(size=8192, contexts=["base:allocation"])
        call.serve(bytearray(8192))

    with nbdpeer.Peer(script) as peer, ImageServer(tmp_path) as server:
        server.add("part", lambda: NBDBackend(peer.url), size=5000)
        [extent] = server.request("GET", "/images/part/extents").json()
        assert (extent["start"], extent["length"]) == (0, 5000)
