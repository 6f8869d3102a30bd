"""/images over disks in memory: the table of requests and answers, and what must not happen."""

from __future__ import annotations

import http.client
import json
import logging
import threading

import pytest
from fakes.clock import FakeClock
from fakes.imageserver import ImageServer
from fakes.waiting import DEADLINE, wait_until

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend

DISK = bytes(range(256)) * 8
SIZE = len(DISK)
READ = "/images/read"
WRITE = "/images/write"


@pytest.fixture
def server(image_server, tmp_path):
    with image_server(tmp_path, unix_socket="\0/org/ovirt/imageio") as server:
        server.add("read", DISK, filename="disk.raw")
        server.disk = bytearray(DISK)
        server.add("write", server.disk, ops=["write"], sparse=True)
        yield server


# --- OPTIONS ---


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
def test_asking_keeps_a_ticket_alive(image_server, tmp_path, method):
    """Clients that convert for minutes before the first byte ask now and then."""
    clock = FakeClock(1000)
    with image_server(tmp_path, clock=clock) as server:
        server.add("read", DISK, timeout=300)
        for _ in range(3):
            clock.advance(200)
            assert server.request(method, READ).status == 200
        clock.advance(301)
        assert server.request(method, READ).status == 403


def test_options_of_a_disk_that_may_be_read(server):
    answer = server.request("OPTIONS", READ)
    assert answer.status == 200
    assert answer.headers["allow"] == "OPTIONS,GET"
    info = answer.json()
    assert info.pop("transfer_id").startswith("(ticket/")
    assert 290 < info.pop("remaining") <= 300
    assert info == {
        "features": ["checksum", "extents", "nbd", "qcow2"],
        "unix_socket": "\0/org/ovirt/imageio",
        "max_readers": 8,
        "max_writers": 1,
        "size": SIZE,
        "block_size": 1,
        "sparse": False,
        "dirty": False,
        "rate": 0,
        "received": 0,
        "sent": 0,
        "connections": 1,
    }


@pytest.mark.parametrize("ops", [["write"], ["read", "write"]])
def test_options_of_a_disk_that_may_be_written(server, ops):
    server.add("x", DISK, ops=ops)
    answer = server.request("OPTIONS", "/images/x")
    assert answer.headers["allow"] == "OPTIONS,GET,PUT,PATCH"
    assert answer.json()["features"] == ["checksum", "extents", "flush", "nbd", "qcow2", "zero"]


def test_options_of_the_server_needs_no_ticket(server):
    answer = server.request("OPTIONS", "/images/*")
    assert answer.status == 200
    assert answer.json() == {
        "features": ["checksum", "extents", "flush", "nbd", "qcow2", "zero"],
        "unix_socket": "\0/org/ovirt/imageio",
    }
    assert answer.headers["allow"] == "OPTIONS,GET,PUT,PATCH"


def test_no_local_service_is_not_advertised(image_server, tmp_path):
    with image_server(tmp_path) as server:
        server.add("read", DISK)
        assert "unix_socket" not in server.request("OPTIONS", READ).json()


def test_a_preflight_is_answered_whatever_the_ticket_is(server):
    headers = {"Origin": "https://engine", "Access-Control-Request-Method": "PUT"}
    answer = server.request("OPTIONS", "/images/unknown", headers)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert server.opened == 0


# --- GET ---


def test_get_everything(server):
    answer = server.request("GET", READ)
    assert (answer.status, answer.body) == (200, DISK)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["content-disposition"] == "attachment; filename=disk.raw"
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-range" not in answer.headers
    assert "content-encoding" not in answer.headers


def test_get_without_a_file_name(server):
    assert server.request("GET", WRITE).headers["content-disposition"] == "attachment"


@pytest.mark.parametrize(
    ("spec", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        (f"bytes=0-{SIZE - 1}", 0, SIZE),
        (f"bytes=5-{SIZE}", 5, SIZE),
        ("bytes=2000-", 2000, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
    ],
)
def test_get_a_range(server, spec, start, stop):
    answer = server.request("GET", READ, {"Range": spec})
    assert (answer.status, answer.body) == (206, DISK[start:stop])
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"


@pytest.mark.parametrize("spec", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE}", "bytes=-0", f"bytes={10**19}-"])
def test_get_out_of_bounds(server, spec):
    answer = server.request("GET", READ, {"Range": spec})
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.headers["content-type"].startswith("text/plain")
    assert "content-disposition" not in answer.headers


@pytest.mark.parametrize("spec", ["bytes=1-0", "bytes=0-1,3-4", "lines=0-1", "bytes", ""])
def test_get_a_malformed_range(server, spec):
    assert server.request("GET", READ, {"Range": spec}).status == 416


def test_the_ticket_bounds_what_can_be_read(server):
    server.add("part", DISK, size=100)
    assert server.request("GET", "/images/part").body == DISK[:100]
    answer = server.request("GET", "/images/part", {"Range": "bytes=90-200"})
    assert (answer.status, answer.headers["content-range"]) == (206, "bytes 90-99/100")
    assert server.request("GET", "/images/part", {"Range": "bytes=100-"}).headers["content-range"] == "bytes */100"


def test_the_disk_bounds_what_can_be_read(server):
    server.add("more", DISK, size=SIZE + 100)
    assert server.request("GET", "/images/more").body == DISK
    answer = server.request("GET", "/images/more", {"Range": "bytes=0-0"})
    assert answer.headers["content-range"] == f"bytes 0-0/{SIZE}"


def test_get_an_empty_disk(server):
    server.add("empty", b"")
    answer = server.request("GET", "/images/empty")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


def test_head(server):
    with server.connect() as connection:
        connection.request("HEAD", READ)
        response = connection.getresponse()
        assert response.read() == b""
        assert response.status == 200
        assert response.headers["content-length"] == str(SIZE)
        assert response.headers["accept-ranges"] == "bytes"
        assert "disk.raw" in response.headers["content-disposition"]
        # The connection is in step: the next answer belongs to the next request.
        assert connection.ask("GET", READ, {"Range": "bytes=0-3"}).body == DISK[:4]


def test_head_of_an_unknown_ticket(server):
    answer = server.request("HEAD", "/images/unknown")
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize(("query", "closes"), [("?close=y", True), ("?close=n", False), ("?close", False), ("", False)])
def test_close_after_the_answer(server, query, closes):
    assert server.request("GET", READ + query).closed is closes
    assert server.request("PUT", WRITE + query, body=b"x").closed is closes


# --- If-Range ---


def test_a_range_if_nothing_was_written(server):
    tag = server.request("HEAD", WRITE).headers["etag"]
    headers = {"Range": "bytes=0-3", "If-Range": tag}
    assert server.request("GET", WRITE, headers).status == 206
    server.request("PUT", WRITE, body=b"y")
    answer = server.request("GET", WRITE, headers)
    assert (answer.status, len(answer.body)) == (200, SIZE)
    assert answer.headers["etag"] != tag


@pytest.mark.parametrize("tag", ['"something else"', "Sun, 06 Nov 1994 08:49:37 GMT", 'W/"weak"', ""])
def test_a_range_of_something_else(server, tag):
    answer = server.request("GET", READ, {"Range": "bytes=0-3", "If-Range": tag})
    assert (answer.status, answer.body) == (200, DISK)


def test_the_tag_tells_nothing_of_the_ticket(server):
    assert "read" not in server.request("HEAD", READ).headers["etag"]


# --- PUT ---


@pytest.mark.parametrize(
    ("content_range", "offset"),
    [(None, 0), ("bytes 0-3/*", 0), ("bytes 10-13/*", 10), ("bytes 10-*/*", 10), (f"bytes 10-13/{SIZE}", 10)],
)
def test_put(server, content_range, offset):
    headers = {} if content_range is None else {"Content-Range": content_range}
    answer = server.request("PUT", WRITE, headers, b"abcd")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert server.disk == DISK[:offset] + b"abcd" + DISK[offset + 4 :]


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=10-13"},
        {"Range": "bytes=10-13", "Content-Range": "bytes 10-13/*"},
        {"Content-Range": "bytes 10-14/*"},
        {"Content-Range": "bytes 10-12/*"},
        {"Content-Range": f"bytes 10-14/{SIZE}"},
    ],
)
def test_put_into_a_range_that_is_not_that_of_the_body(server, headers):
    answer = server.request("PUT", WRITE, headers, b"abcd")
    assert answer.status == 400
    assert server.disk == DISK


@pytest.mark.parametrize(("content_range", "status"), [("3-9/*", 200), ("3-8/*", 416), ("3-10/*", 400)])
def test_put_chunks_into_a_range(server, content_range, status):
    answer = server.request("PUT", WRITE, {"Content-Range": f"bytes {content_range}"}, iter([b"abc", b"defg"]))
    assert answer.status == status


def test_put_nothing(server):
    assert server.request("PUT", WRITE, {"Content-Length": "0"}).status == 200
    assert server.disk == DISK


def test_put_chunks(server):
    answer = server.request("PUT", WRITE, {"Content-Range": "bytes 3-*/*"}, iter([b"abc", b"defg"]))
    assert answer.status == 200
    assert server.disk == DISK[:3] + b"abcdefg" + DISK[10:]


def test_put_chunks_that_do_not_fit(server):
    answer = server.request("PUT", WRITE, {"Content-Range": f"bytes {SIZE - 2}-*/*"}, iter([b"abc"]))
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert len(server.disk) == SIZE


@pytest.mark.parametrize(
    ("content_range", "size"), [(f"bytes {SIZE - 1}-*/*", 2), (f"bytes {SIZE}-*/*", 1), ("bytes 0-*/*", SIZE + 1)]
)
def test_put_out_of_bounds(server, content_range, size):
    answer = server.request("PUT", WRITE, {"Content-Range": content_range}, b"x" * size)
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert server.disk == DISK


def test_put_beyond_a_disk_that_cannot_grow(server):
    class Fixed(MemoryBackend):
        can_grow = False

    server.add("fixed", lambda: Fixed(DISK), size=SIZE * 2, ops=["write"])
    answer = server.request("PUT", "/images/fixed", {"Content-Range": f"bytes {SIZE}-*/*"}, b"x")
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")


def test_put_beyond_a_disk_that_grows(server):
    class Growing(MemoryBackend):
        can_grow = True

    disk = bytearray(b"abc")
    server.add("growing", lambda: Growing(disk), size=10, ops=["write"])
    assert server.request("PUT", "/images/growing", {"Content-Range": "bytes 3-*/*"}, b"def").status == 200
    assert disk == b"abcdef"
    assert server.request("PUT", "/images/growing", {"Content-Range": "bytes 9-*/*"}, b"xx").status == 416


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (WRITE + "?flush=maybe", {}),
        (WRITE + "?flush=", {}),
        (WRITE, {"Content-Range": "bytes */10"}),
        (WRITE, {"Content-Range": "bytes 5-4/*"}),
        (WRITE, {"Content-Range": ""}),
    ],
)
def test_put_malformed(server, path, headers):
    answer = server.request("PUT", path, headers, b"xxxx")
    assert answer.status == 400
    assert answer.closed
    assert server.disk == DISK


def test_put_without_a_length(server):
    with server.connect() as connection:
        connection.connect()
        connection.sock.sendall(b"PUT /images/write HTTP/1.1\r\n\r\n")
        assert connection.sock.recv(100).startswith(b"HTTP/1.1 400 ")


class Flushed(MemoryBackend):
    flushes = 0

    def flush(self):
        type(self).flushes += 1


@pytest.mark.parametrize(("query", "flushes"), [("", 1), ("?flush=y", 1), ("?flush=n", 0)])
def test_put_flushes(server, query, flushes):
    Flushed.flushes = 0
    server.add("flushed", lambda: Flushed(bytearray(10)), size=10, ops=["write"])
    assert server.request("PUT", "/images/flushed" + query, body=b"x").status == 200
    assert Flushed.flushes == flushes


def test_put_that_ends_early_keeps_what_came(server):
    with server.connect() as connection:
        connection.connect()
        connection.sock.sendall(b"PUT /images/write HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
        connection.sock.shutdown(1)
        assert connection.sock.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert server.disk == b"abc" + DISK[3:]


# --- PATCH ---


def patch(server, message, path=WRITE):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return server.request("PATCH", path, body=body)


@pytest.mark.parametrize(
    ("message", "start", "stop"),
    [
        ({"op": "zero", "size": SIZE}, 0, SIZE),
        ({"op": "zero", "size": 10, "offset": 20}, 20, 30),
        ({"op": "zero", "size": 0, "offset": SIZE}, 0, 0),
        ({"op": "zero", "size": 1, "flush": True, "future": [1]}, 0, 1),
    ],
)
def test_zero(server, message, start, stop):
    answer = patch(server, message)
    assert (answer.status, answer.body) == (200, b"")
    assert server.disk == DISK[:start] + bytes(stop - start) + DISK[stop:]


@pytest.mark.parametrize(("flush", "flushes"), [(None, 0), (False, 0), (True, 1)])
def test_zero_flushes(server, flush, flushes):
    Flushed.flushes = 0
    server.add("flushed", lambda: Flushed(bytearray(10)), size=10, ops=["write"])
    message = {"op": "zero", "size": 5} if flush is None else {"op": "zero", "size": 5, "flush": flush}
    assert patch(server, message, "/images/flushed").status == 200
    assert Flushed.flushes == flushes


def test_flush(server):
    Flushed.flushes = 0
    server.add("flushed", lambda: Flushed(bytearray(10)), size=10, ops=["write"])
    assert patch(server, {"op": "flush"}, "/images/flushed").status == 200
    assert Flushed.flushes == 1


@pytest.mark.parametrize("message", [{"size": SIZE + 1}, {"size": 1, "offset": SIZE}, {"size": 2**62, "offset": 2**62}])
def test_zero_out_of_bounds(server, message):
    answer = patch(server, {"op": "zero", **message})
    assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert server.disk == DISK


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"zero"',
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        {"op": "trim"},
        {"op": ["zero"]},
        {"op": "zero"},
        {"op": "zero", "size": -1},
        {"op": "zero", "size": True},
        {"op": "zero", "size": 1.0},
        {"op": "zero", "size": "1"},
        {"op": "zero", "size": 2**63},
        {"op": "zero", "size": None},
        {"op": "zero", "size": 1, "offset": -1},
        {"op": "zero", "size": 1, "offset": None},
        {"op": "zero", "size": 1, "flush": 1},
        {"op": "zero", "size": 1, "flush": None},
    ],
)
def test_patch_malformed(server, message):
    answer = patch(server, message)
    assert answer.status == 400
    assert answer.body.endswith(b"\n")
    assert len(answer.body) < 512
    assert server.disk == DISK


def test_patch_of_a_huge_body(server):
    assert patch(server, b" " * (1024**2 + 1)).status == 413


def test_patch_reads_nothing_before_it_knows_the_ticket(server):
    with server.connect() as connection:
        connection.connect()
        connection.sock.sendall(b"PATCH /images/unknown HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
        assert connection.sock.recv(1000).startswith(b"HTTP/1.1 403 ")


# --- Who may do what ---


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "PUT", "PATCH"])
def test_an_unknown_ticket(server, method):
    answer = server.request(method, "/images/unknown", body=b"{}" if method in ("PUT", "PATCH") else None)
    assert answer.status == 403
    assert answer.closed
    assert b"No such ticket" in answer.body
    assert b"unknown," in answer.body  # The text is the same for all; it does not repeat the id.
    assert server.opened == 0


def test_a_canceled_and_an_expired_ticket_look_like_an_unknown_one(server):
    unknown = server.request("GET", "/images/no-such").body
    server.store.extend("read", {"timeout": 0})
    assert server.request("GET", READ).body == unknown


@pytest.mark.parametrize(("method", "body"), [("PUT", b"x"), ("PATCH", b'{"op": "flush"}')])
def test_a_ticket_that_may_only_be_read(server, method, body):
    answer = server.request(method, READ, body=body)
    assert answer.status == 403
    assert b"write" in answer.body
    assert answer.closed


def test_a_ticket_that_may_be_written_may_be_read(server):
    assert server.request("GET", WRITE).body == DISK


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "HEAD", "PUT", "PATCH"])
def test_an_empty_id(server, method):
    assert server.request(method, "/images/", body=b"{}" if method in ("PUT", "PATCH") else None).status == 400


def test_ids_are_secrets(server, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "3e1b4d7c-secret-of-the-ticket"
    server.add(secret, bytearray(10), ops=["write"])
    for method, body in [("OPTIONS", None), ("GET", None), ("PUT", b"x" * 11), ("PATCH", b"{}"), ("DELETE", None)]:
        server.request(method, f"/images/{secret}", body=body)
    assert secret not in caplog.text


# --- When the storage fails ---


class Failing(MemoryBackend):
    def __init__(self, error, after=0):
        super().__init__(bytearray(3 * 1024**2))
        self._error = error
        self._after = after

    def readinto(self, offset, view):
        if offset >= self._after:
            raise self._error
        return super().readinto(offset, view)

    def write(self, offset, view):
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.StorageError("read", "Input/output error", 5), 500),
        (errors.BackendUnavailable("connect", "Connection refused"), 503),
        (errors.BackendTimeout("read", "no answer within 60 seconds"), 504),
        (errors.OriginError("read", "gone fishing", status=418), 418),
    ],
)
def test_a_disk_that_fails_before_the_first_byte(server, error, status):
    server.add("failing", lambda: Failing(error), size=3 * 1024**2)
    answer = server.request("GET", "/images/failing")
    assert answer.status == status
    assert str(error).encode() in answer.body
    assert "content-disposition" not in answer.headers


def test_a_disk_that_fails_in_the_middle_ends_the_connection(server):
    error = errors.StorageError("read", "Input/output error", 5)
    server.add("failing", lambda: Failing(error, after=2 * 1024**2), size=3 * 1024**2)
    with server.connect() as connection:
        connection.request("GET", "/images/failing")
        response = connection.getresponse()
        data = response.read(2 * 1024**2)
        assert len(data) == 2 * 1024**2
        with pytest.raises(Exception, match=r"IncompleteRead|Incomplete"):
            response.read()


def test_a_full_disk(server):
    server.add("full", lambda: Failing(errors.NoSpace("write", "No space left on device", 28)), size=100, ops=["write"])
    answer = server.request("PUT", "/images/full", body=b"x" * 10)
    assert answer.status == 507
    assert b"No space left" in answer.body


def test_a_disk_that_cannot_be_opened(server):
    def refuse():
        raise errors.BackendUnavailable("open", "No such file or directory", 2)

    server.add("missing", refuse, size=100)
    assert server.request("GET", "/images/missing").status == 503


# --- Connections ---


def test_a_connection_opens_the_disk_once(server):
    with server.connect() as connection:
        for _ in range(5):
            assert connection.ask("GET", READ, {"Range": "bytes=0-0"}).status == 206
    assert server.opened == 1


def test_odd_headers_are_ignored(server):
    headers = {"Authorization": "Bearer x", "Cookie": "a=b", "PUT": "junk", "Accept-Encoding": "gzip"}
    answer = server.request("GET", READ, headers)
    assert (answer.status, answer.body) == (200, DISK)


def test_too_many_connections(image_server, tmp_path):
    with image_server(tmp_path, max_connections=1) as server, server.connect() as first:
        server.add("disk", b"data")
        assert first.ask("GET", "/images/disk").status == 200
        with server.connect() as second:
            answer = second.ask("GET", "/images/disk")
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            first.close()
            # The server needs a moment to see that.
            wait_until(lambda: second.ask("GET", "/images/disk").status == 200)


def test_stalled_download_gives_way(tmp_path):
    clock = FakeClock()
    with ImageServer(tmp_path, clock=clock, max_connections=1) as server, server.connect() as stalled:
        server.add("disk", bytearray(64 * 1024**2), ops=["write"])
        stalled.request("GET", "/images/disk")
        # Its head is here: it has begun.
        answer = stalled.getresponse()
        with server.connect() as good:

            def is_served():
                # What fills the buffers of the kernel is still taken for activity.
                clock.advance(11)
                return good.ask("GET", "/images/disk", {"range": "bytes=0-9"}).status == 206

            wait_until(is_served)
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_upload_whose_client_left_does_not_undo_a_newer_one(tmp_path):
    """A client that got no answer sends its data again, and hears that they are safe: that must hold."""
    disk = bytearray(4)
    is_writing, go_on = threading.Event(), threading.Event()

    class Slow(MemoryBackend):
        def write(self, offset, view):
            if view == b"old!":
                is_writing.set()
                assert go_on.wait(DEADLINE)
            super().write(offset, view)

    with ImageServer(tmp_path) as server:
        server.add("disk", lambda: Slow(disk), size=4, ops=["write"])
        with server.connect() as first:
            first.request("PUT", "/images/disk", b"old!")
            assert is_writing.wait(DEADLINE)
        answers = []
        newer = threading.Thread(target=lambda: answers.append(server.request("PUT", "/images/disk", None, b"new!")))
        newer.start()
        wait_until(lambda: server.store.info("disk")["connections"] == 2)
        assert disk == bytes(4)
        go_on.set()
        newer.join(DEADLINE)
        assert answers[0].status == 200
        wait_until(lambda: not server.store.info("disk")["active"])
        assert disk == b"new!"
