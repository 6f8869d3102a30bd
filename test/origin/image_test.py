"""An image of another daemon, against origins that behave, old ones, and ones that do not."""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest
from backends.contract import MIB, Bytes, Collector, Progress
from fakes.clock import FakeClock
from fakes.origin import TICKET_ID, DiskOrigin, ScriptedOrigin
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.origin.image import Description, Image

# --- What the origin can do ---


def requests(origin):
    """Return the requests after the negotiation, without the path that all have."""
    return [f"{method} {path.partition(TICKET_ID)[2]}" for method, path, _ in origin.requests[1:]]


@contextlib.contextmanager
def opened(origin, **options):
    with contextlib.closing(Image(origin.url, **options)) as image:
        yield image


@pytest.mark.parametrize(
    "status,answer",
    [(405, b""), (204, b""), (200, b"hello"), (200, b"[]"), (200, b'{"features": "zero"}'), (200, b"\xff")],
)
def test_very_old_origins(status, answer):
    with DiskOrigin(b"0123456789") as origin:
        origin.options, origin.options_status = answer, status
        with opened(origin) as image:
            assert (image.abilities.max_readers, image.abilities.max_writers) == (1, 1)
            assert image.size() == 10
            image.write(2, memoryview(b"xy"))
            image.zero(5, 2)
            image.flush()
            assert list(image.extents()) == [ZeroExtent(0, 10, False, False)]
            with pytest.raises(errors.UnsupportedContext):
                image.extents("dirty")
            assert image.checksum("blake2b", 4096) is None
        assert origin.data == b"01xy4\0\x00789"
        # It flushes every PUT, and knows nothing else.
        assert requests(origin) == ["GET ", "PUT ", "PUT "]


@pytest.mark.parametrize("answer", [{"max_readers": "many", "max_writers": -1, "size": 1.5}, {"features": [1, None]}])
def test_nonsense_is_ignored(answer):
    with DiskOrigin(b"0123456789") as origin:
        origin.options = answer
        with opened(origin) as image:
            assert (image.abilities.max_readers, image.abilities.max_writers, image.size()) == (1, 1, 10)


def test_size_told_with_options():
    with DiskOrigin(b"0123456789") as origin:
        origin.options["size"] = 10
        with opened(origin) as image:
            assert image.size() == 10
        assert requests(origin) == []


def test_size_that_others_change():
    clock = FakeClock()
    with DiskOrigin(b"0123456789") as origin:
        origin.options["size"] = 10
        with opened(origin, clock=clock) as image:
            origin.options["size"] = 20
            assert image.size() == 10
            clock.advance(1.1)
            assert image.size() == image.size() == 20
        assert requests(origin) == ["OPTIONS "]


def test_size_from_extents_is_asked_for_once():
    with DiskOrigin(b"0123456789") as origin, opened(origin) as image:
        assert image.size() == image.size() == 10
        image.write(10, memoryview(b"x" * 5))
        assert image.size() == 15
        assert requests(origin) == ["GET /extents?context=zero", "PUT ?flush=n"]


def test_flush_is_asked_for_separately():
    with DiskOrigin(bytes(100)) as origin, opened(origin) as image:
        image.write(0, memoryview(b"x"))
        image.zero(10, 5)
        image.flush()
        assert origin.messages == [{"op": "zero", "offset": 10, "size": 5, "flush": False}, {"op": "flush"}]


def test_zero_flushes_where_nothing_else_does():
    with DiskOrigin(bytes(100), ("zero",)) as origin, opened(origin) as image:
        image.zero(10, 5)
        image.flush()
        assert origin.messages == [{"op": "zero", "offset": 10, "size": 5, "flush": True}]


def test_stream_is_one_request():
    with DiskOrigin(bytes(5 * MIB)) as origin, opened(origin) as image:
        assert image.size() == 5 * MIB
        sink = Collector()
        image.send_to(sink, 1, 4 * MIB, Progress())
        image.receive_from(Bytes(bytes(4 * MIB)), 1, 4 * MIB, Progress())
        assert requests(origin)[1:] == ["GET ", "PUT ?flush=n"]
        assert origin.requests[2][2]["range"] == f"bytes=1-{4 * MIB}"
        assert origin.requests[3][2]["content-range"] == f"bytes 1-{4 * MIB}/*"


# --- Uploads of unknown length ---


@pytest.mark.parametrize("length,bodies", [(0, []), (10, [10]), (MIB - 1, [MIB - 1]), (MIB, ["chunked"])])
def test_unknown_length_for_a_new_origin(length, bodies):
    with DiskOrigin(bytes(5 * MIB)) as origin:
        origin.options["transfer_id"] = "x"
        with opened(origin) as image:
            assert image.receive_all(Bytes(b"x" * length), 5, 4 * MIB, Progress()) == length
        assert origin.data == bytes(5) + b"x" * length + bytes(5 * MIB - 5 - length)
        assert uploads(origin) == bodies


def test_unknown_length_for_an_old_origin():
    """Each piece has a request of its own: its answer is the only one that tells what became of it."""
    with DiskOrigin(bytes(5 * MIB)) as origin, opened(origin) as image:
        assert image.receive_all(Bytes(b"x" * (2 * MIB + 7)), 5, 4 * MIB, Progress()) == 2 * MIB + 7
        assert origin.data == bytes(5) + b"x" * (2 * MIB + 7) + bytes(3 * MIB - 12)
        assert uploads(origin) == [MIB, MIB, 7]


def uploads(origin):
    """Return the length of each upload that came, or that it came in chunks."""
    puts = [headers for method, _, headers in origin.requests if method == "PUT"]
    return [int(found["content-length"]) if "content-length" in found else found["transfer-encoding"] for found in puts]


@pytest.mark.parametrize("status", [200, 400, 403, 500, 507])
def test_answer_after_the_last_chunk_counts(status):
    def script(wire):
        wire.options(transfer_id="x")
        wire.read_head()
        wire.read_chunks()
        wire.answer(status, b"Storage failed\n")

    with ScriptedOrigin(script) as origin, opened(origin) as image:
        if status == 200:
            assert image.receive_all(Bytes(bytes(3 * MIB)), 0, 4 * MIB, Progress()) == 3 * MIB
        else:
            progress = Progress()
            with pytest.raises(errors.OriginError, match="Storage failed") as e:
                image.receive_all(Bytes(bytes(3 * MIB)), 0, 4 * MIB, progress)
            assert e.value.status == status
            # How much of it is stored is not known.
            assert max(progress.calls) > 0 == progress.total


@pytest.mark.parametrize("status,error", [(200, errors.StorageError), (507, errors.OriginError)])
def test_answer_before_the_last_chunk(status, error):
    """Also with success: it cannot be true."""

    def script(wire):
        wire.options(transfer_id="x")
        wire.read_head()
        wire.read(1000)
        wire.answer(status, b"No space left\n", "Connection: close\r\n")
        wire.stall()

    with ScriptedOrigin(script) as origin, opened(origin) as image, pytest.raises(error):
        image.receive_all(Bytes(bytes(200 * MIB), step=MIB), 0, 200 * MIB, Progress())


def test_origin_that_leaves_instead_of_answering_chunks():
    def script(wire):
        wire.options(transfer_id="x")
        wire.read_head()
        wire.read_chunks()

    with ScriptedOrigin(script) as origin, opened(origin) as image, pytest.raises(errors.BackendUnavailable):
        image.receive_all(Bytes(bytes(3 * MIB)), 0, 4 * MIB, Progress())


def test_client_that_leaves_amid_chunks():
    """The origin learns that there is no more, and does not take it for the end."""
    bodies = []

    def script(wire):
        wire.options(transfer_id="x")
        wire.read_head()
        bodies.append(wire.read(5 * MIB))
        wire.answer(400, b"The request body ended before its last chunk\n")

    with ScriptedOrigin(script) as origin, opened(origin) as image:
        source = Bytes(b"x" * (2 * MIB), error=ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError, match="gone"):
            image.receive_all(source, 0, 4 * MIB, Progress())
    assert bodies[0].count(b"x") == 2 * MIB
    assert not bodies[0].endswith(b"0\r\n\r\n")


# --- Extents and checksum ---


def test_extents_are_those_of_the_origin():
    with DiskOrigin(bytes(100)) as origin:
        origin.extents["zero"] = [
            {"start": 0, "length": 50, "zero": True, "hole": True},
            {"start": 50, "length": 50, "zero": False, "hole": False},
        ]
        origin.extents["dirty"] = [{"start": 0, "length": 100, "dirty": True, "zero": False}]
        with opened(origin) as image:
            assert list(image.extents()) == [ZeroExtent(0, 50, True, True), ZeroExtent(50, 50, False, False)]
            assert list(image.extents("zero", 40, 20)) == [
                ZeroExtent(40, 10, True, True),
                ZeroExtent(50, 10, False, False),
            ]
            assert list(image.extents("dirty")) == [DirtyExtent(0, 100, True, False)]


@pytest.mark.parametrize("context", ["zero", "dirty"])
@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("extents", [[], [(0, 99)], [(1, 99)], [(0, 50), (60, 40)], [(0, 50), (50, 0), (50, 50)]])
def test_list_that_does_not_cover_the_image(extents, is_told, context):
    """A copy of what is listed would miss the rest."""
    with DiskOrigin(bytes(100)) as origin:
        if is_told:
            origin.options["size"] = 100
        with opened(origin) as image:
            assert image.size() == 100
            origin.extents[context] = [
                {"start": start, "length": length, context: True, "zero": True} for start, length in extents
            ]
            with pytest.raises(errors.StorageError, match="malformed list"):
                list(image.extents(context))


def test_image_that_grows_while_it_is_listed():
    with DiskOrigin(bytes(100)) as origin:
        origin.options["size"] = 90
        with opened(origin) as image:
            assert list(image.extents()) == [ZeroExtent(0, 90, False, False)]
            assert list(image.extents("zero", 80, 50)) == [ZeroExtent(80, 10, False, False)]


def test_list_without_end_tells_no_size():
    clock = FakeClock()

    def script(wire):
        wire.options(features=["extents"])
        wire.read_head()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n[")
        for start in itertools.count():
            wire.send(b'{"start": %d, "length": 1, "zero": true}, ' % start)
            clock.advance(1)

    with ScriptedOrigin(script) as origin, opened(origin, clock=clock) as image, pytest.raises(errors.BackendTimeout):
        image.size()


def test_empty_list_does_not_tell_that_the_image_is_empty():
    with DiskOrigin(bytes(100)) as origin:
        origin.extents["zero"] = []
        with opened(origin) as image:
            assert image.size() == 100


def test_dirty_extents_that_the_origin_has_not():
    with DiskOrigin(bytes(100)) as origin:
        origin.refusals["GET", "/extents"] = (404, "no bitmap", {})
        with opened(origin) as image, pytest.raises(errors.UnsupportedContext, match="that of an incremental backup"):
            image.extents("dirty")


def test_reading_while_extents_are_listed():
    with DiskOrigin(b"x" * 1000) as origin:
        origin.extents["zero"] = [{"start": i, "length": 1, "zero": i % 2 == 0} for i in range(1000)]
        with opened(origin) as image:
            view = memoryview(bytearray(1))
            for extent in image.extents():
                assert image.readinto(extent.start, view) == 1
        assert requests(origin).count("GET ") == 1000


def test_listing_that_is_not_read_to_its_end():
    with DiskOrigin(b"x" * 100_000) as origin:
        origin.extents["zero"] = [{"start": i, "length": 1, "zero": i % 2 == 0} for i in range(100_000)]
        with opened(origin) as image:
            extents = image.extents()
            first = next(extents)
            del extents
            assert next(image.extents()) == first


# --- What the session asks ---


def test_look():
    with DiskOrigin(b"0123456789") as origin, opened(origin) as image:
        assert image.look() == Description(10, True, True, None)


def test_look_at_a_new_origin():
    def script(wire):
        assert wire.read_head().startswith("OPTIONS ")
        wire.answer(200, b'{"features": ["extents"], "size": 10, "dirty": false}', "Allow: OPTIONS,GET\r\n")
        assert "range: bytes=0-0" in wire.read_head()
        wire.answer(206, b"0", "Content-Range: bytes 0-0/10\r\nContent-Disposition: attachment; filename=a b.iso\r\n")

    with ScriptedOrigin(script) as origin, opened(origin) as image:
        assert image.look() == Description(10, False, False, "a b.iso")


# --- Errors of the origin ---


def test_refused_upload_ends_early():
    """The origin answers while the body is being sent, and waits for nothing."""

    def script(wire):
        wire.options()
        wire.read_head()
        wire.read(1000)
        wire.answer(403, b"No such ticket\n", "Connection: close\r\n")
        wire.stall()

    with ScriptedOrigin(script) as origin, opened(origin) as image:
        # More than fits on the way: the answer must be noticed while nothing more can be sent.
        endless = Bytes(bytes(200 * MIB), step=MIB)
        with pytest.raises(errors.OriginError, match="No such ticket"):
            image.receive_from(endless, 0, 200 * MIB, Progress())
        # It did not read all of it first.
        assert endless.readinto(memoryview(bytearray(1))) == 1


@pytest.mark.parametrize(
    "status,error,text",
    [(403, errors.OriginError, "No such ticket"), (200, errors.BackendUntrusted, "before the end")],
)
def test_write_that_is_answered_early(status, error, text):
    """Also with success: it cannot be true, and what is left of the body must not become the next request."""

    def script(wire):
        wire.options()
        wire.read_head()
        wire.answer(status, b"No such ticket\n")
        wire.stall()

    def second(wire):
        wire.read_head()
        wire.answer()

    with ScriptedOrigin(script, second) as origin, opened(origin) as image:
        with pytest.raises(error, match=text):
            image.write(0, memoryview(bytes(64 * MIB)))
        image.flush()
        assert [head.split(" ")[0] for head in origin.heads] == ["OPTIONS", "PUT", "PATCH"]


# --- An origin that goes away ---


def test_idle_connection_that_was_dropped():
    with DiskOrigin(b"0123456789") as origin, opened(origin) as image:
        for step in (
            lambda: image.readinto(0, memoryview(bytearray(5))),
            lambda: image.write(0, memoryview(b"x" * 100)),
            lambda: image.receive_from(Bytes(bytes(3 * MIB)), 0, 3 * MIB, Progress()),
            lambda: image.send_to(Collector(), 0, 5, Progress()),
            lambda: image.zero(0, 5),
            lambda: image.flush(),
            lambda: list(image.extents()),
            lambda: image.checksum("sha1", 4096),
        ):
            before = step()
            origin.drop_connections()
            assert step() == before


def test_dropped_at_the_very_moment():
    """The origin closes just when the request arrives: not a byte was answered, so it is sent again."""

    def first(wire):
        wire.options(size=100)
        wire.read_head()

    def second(wire):
        assert wire.read_head().startswith("GET ")
        wire.answer(206, b"x" * 10)

    with ScriptedOrigin(first, second) as origin, opened(origin) as image:
        assert image.readinto(0, memoryview(bytearray(10))) == 10
        assert len(origin.heads) == 3


def test_small_upload_is_sent_again():
    def first(wire):
        wire.options(size=100)
        wire.read_head()
        wire.reset()

    def second(wire):
        assert wire.read_head().startswith("PUT ")
        assert wire.read(1000) == b"x" * 1000
        wire.answer()

    with ScriptedOrigin(first, second) as origin, opened(origin) as image:
        image.receive_from(Bytes(b"x" * 1000), 0, 1000, Progress())


def test_dropped_twice_is_an_error():
    def first(wire):
        wire.options(size=100)
        wire.read_head()

    with (
        ScriptedOrigin(first, lambda wire: wire.read_head()) as origin,
        opened(origin) as image,
        pytest.raises(errors.BackendUnavailable, match="lost"),
    ):
        image.readinto(0, memoryview(bytearray(10)))


def test_half_an_answer_is_not_asked_for_again():
    def script(wire):
        wire.options(size=100)
        wire.read_head()
        wire.send(b"HTTP/1.1 206 OK\r\nContent-Le")

    with (
        ScriptedOrigin(script) as origin,
        opened(origin) as image,
        pytest.raises(errors.BackendUnavailable, match="lost"),
    ):
        image.readinto(0, memoryview(bytearray(10)))


def nothing(wire):
    """Leave."""


OPERATIONS = {
    "GET": lambda image: image.send_to(Collector(), 0, 3 * MIB, Progress()),
    "PUT": lambda image: image.receive_from(Bytes(bytes(3 * MIB)), 0, 3 * MIB, Progress()),
    "PATCH": lambda image: image.flush(),
    "extents": lambda image: list(image.extents()),
}


def begin_answer(wire, name):
    """Play the part of an operation that goes well."""
    wire.options(size=3 * MIB)
    wire.read_head()
    if name == "GET":
        wire.send(f"HTTP/1.1 206 OK\r\nContent-Length: {3 * MIB}\r\n\r\n".encode() + bytes(MIB))
    elif name == "PUT":
        wire.read(MIB)
    elif name == "extents":
        chunk = b'[{"start": 0, "length": 100, "zero": true},'
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(chunk), chunk))
    else:
        wire.send(b"HTTP/1.1 2")


@pytest.mark.parametrize("end", [nothing, lambda wire: wire.reset()], ids=["close", "reset"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gone_in_the_middle(name, end):
    def script(wire):
        begin_answer(wire, name)
        end(wire)

    with (
        ScriptedOrigin(script) as origin,
        opened(origin) as image,
        pytest.raises(errors.BackendUnavailable, match="lost"),
    ):
        OPERATIONS[name](image)


@pytest.mark.parametrize("name", OPERATIONS)
def test_stalled_in_the_middle(name):
    def script(wire):
        begin_answer(wire, name)
        wire.stall()

    with ScriptedOrigin(script) as origin, opened(origin) as image:
        # Only now: opening must not take too long, however busy this machine is.
        image.resource.origin._idle._timeout = 0.1
        with pytest.raises(errors.BackendTimeout):
            OPERATIONS[name](image)


@pytest.mark.parametrize("name", [*OPERATIONS, "checksum"])
def test_interrupted_while_it_stalls(name):
    def script(wire):
        begin_answer(wire, name)
        wire.stall()

    operation = OPERATIONS.get(name, lambda image: image.checksum("sha1", 4096))
    with ScriptedOrigin(script) as origin, opened(origin) as image:
        thread = threading.Thread(target=lambda: (origin.stalled.wait(DEADLINE), image.interrupt()))
        thread.start()
        with pytest.raises(errors.OperationCanceled):
            operation(image)
        thread.join()
        with pytest.raises(errors.OperationCanceled):
            image.flush()


@pytest.mark.parametrize("name", OPERATIONS)
def test_restarted_meanwhile(name):
    """After an error the image works again."""

    def first(wire):
        begin_answer(wire, name)

    def second(wire):
        assert wire.read_head().startswith("PATCH ")
        wire.answer()

    with ScriptedOrigin(first, second) as origin, opened(origin) as image:
        with pytest.raises(errors.BackendUnavailable):
            OPERATIONS[name](image)
        image.flush()


def test_put_is_not_done_before_the_origin_says_so():
    def script(wire):
        wire.options(size=3 * MIB)
        wire.read_head()
        wire.read(3 * MIB)

    progress = Progress()
    with ScriptedOrigin(script) as origin, opened(origin) as image, pytest.raises(errors.BackendUnavailable):
        image.receive_from(Bytes(bytes(3 * MIB)), 0, 3 * MIB, progress)
    assert max(progress.calls) > 0 == progress.total


@pytest.mark.parametrize(
    "status,text,stored",
    [
        (400, f"Expected {4 * MIB} bytes, got only 1000", 1000),
        (400, f"Expected {4 * MIB} bytes, got only {3 * MIB}", 2 * MIB),
        (400, "Expected 1 bytes, got only 1000", 0),
        (400, "Partial content", 0),
        (507, f"Expected {4 * MIB} bytes, got only 1000", 0),
        (200, "", 0),
    ],
)
def test_upload_that_was_cut_counts_what_the_origin_says(status, text, stored):
    def script(wire):
        wire.options(size=4 * MIB)
        wire.read_head()
        wire.read(4 * MIB)
        wire.answer(status, text.encode())

    progress = Progress()
    with ScriptedOrigin(script) as origin, opened(origin) as image, pytest.raises(ConnectionResetError):
        image.receive_from(Bytes(bytes(2 * MIB), error=ConnectionResetError("gone")), 0, 4 * MIB, progress)
    assert progress.total == stored
