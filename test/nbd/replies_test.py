"""Replies, as bytes: where they go, and which ones are refused."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.nbd import replies, wire
from ovirt_imageio.nbd.errors import ProtocolError
from ovirt_imageio.nbd.handshake import Export
from ovirt_imageio.nbd.replies import Data, Done, Hole, Replies, SentCommand
from ovirt_imageio.nbd.wire import Chunk, ExportFlag, Mode

CONTEXTS = {1: "base:allocation", 2: "qemu:allocation-depth"}
OFFSET = 10000


def simple(command, error=0, payload=b""):
    return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, command.cookie) + payload


class Session:
    """The replies of one server, and the bytes that it sends."""

    def __init__(self, mode=Mode.STRUCTURED, contexts=None):
        self.mode = mode
        export = Export("", 2**62, ExportFlag.HAS_FLAGS, mode, CONTEXTS if contexts is None else contexts)
        self.replies = Replies(export)

    def add(self, kind, length=0, offset=OFFSET):
        view = memoryview(bytearray(b"?" * length)) if kind == wire.Command.READ else None
        command = SentCommand(kind, offset, length, view)
        self.replies.add(command)
        return command

    def chunk(self, command, kind, payload=b"", flags=0, length=None, offset=None):
        length = len(payload) if length is None else length
        if self.mode is Mode.EXTENDED:
            where = command.offset if offset is None else offset
            head = wire.EXTENDED_REPLY.pack(wire.EXTENDED_REPLY_MAGIC, flags, kind, command.cookie, where, length)
        else:
            head = wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, flags, kind, command.cookie, length)
        return head + payload

    def data(self, command, start, data, flags=0):
        return self.chunk(command, Chunk.OFFSET_DATA, struct.pack(">Q", command.offset + start) + data, flags)

    def hole(self, command, start, length, flags=0):
        return self.chunk(command, Chunk.OFFSET_HOLE, wire.HOLE.pack(command.offset + start, length), flags)

    def none(self, command):
        return self.chunk(command, Chunk.NONE, flags=1)

    def error(self, command, code=5, message=b"", flags=1):
        return self.chunk(command, Chunk.ERROR, wire.ERROR.pack(code, len(message)) + message, flags)

    def status(self, command, context, *extents, flags=0):
        flat = [number for extent in extents for number in extent]
        if self.mode is Mode.EXTENDED:
            payload = struct.pack(f">II{len(flat)}Q", context, len(extents), *flat)
            return self.chunk(command, Chunk.BLOCK_STATUS_EXT, payload, flags)
        return self.chunk(command, Chunk.BLOCK_STATUS, struct.pack(f">I{len(flat)}I", context, *flat), flags)

    def feed(self, data):
        """Take bytes as the client does; return the commands that have ended. EOFError when more are wanted."""
        left = memoryview(data)
        done = []
        while left or not done:
            for step in self.replies:
                if isinstance(step, Done):
                    done.append(step.command)
                    break
                if isinstance(step, Hole):
                    step.command.view[step.start : step.start + step.length] = bytes(step.length)
                    continue
                view = step.command.view[step.start : step.start + step.length] if isinstance(step, Data) else step
                if len(left) < len(view):
                    raise EOFError
                view[:] = left[: len(view)]
                left = left[len(view) :]
        return done


@pytest.fixture(params=[Mode.STRUCTURED, Mode.EXTENDED])
def session(request):
    return Session(request.param)


# The usual replies


def usual(session, command):
    """Return the usual reply to a command, and how long its head is."""
    if command.kind != wire.Command.READ:
        return simple(command), wire.SIMPLE_REPLY.size
    if session.mode is Mode.SIMPLE:
        return simple(command, payload=b"data"), wire.SIMPLE_REPLY.size
    return session.data(command, 0, b"data", flags=1), wire.ONE_CHUNK.size


USUAL = pytest.mark.parametrize(
    "mode, kind",
    [
        (Mode.SIMPLE, wire.Command.READ),
        (Mode.SIMPLE, wire.Command.WRITE),
        (Mode.STRUCTURED, wire.Command.READ),
        (Mode.STRUCTURED, wire.Command.WRITE),
        (Mode.STRUCTURED, wire.Command.FLUSH),
    ],
)


@USUAL
def test_usual_reply(mode, kind):
    session = Session(mode)
    command = session.add(kind, 4)
    reply, _ = usual(session, command)
    assert session.replies.take_usual(command, reply + b"more") == len(reply)
    assert command.view is None or command.view == b"data"
    assert len(session.replies) == session.replies.payload == 0
    # The steps go on with the next one.
    again = session.add(kind, 4)
    assert session.feed(usual(session, again)[0]) == [again]


@USUAL
def test_what_is_not_the_usual_reply_is_left_to_the_steps(mode, kind):
    session = Session(mode)
    command = session.add(kind, 4)
    reply, head = usual(session, command)
    for end in range(len(reply)):
        assert session.replies.take_usual(command, reply[:end]) == 0
    for position in range(head):
        changed = bytearray(reply)
        changed[position] ^= 1
        assert session.replies.take_usual(command, bytes(changed)) == 0
    assert command.view is None or command.view == b"????"
    assert session.feed(reply) == [command]


@pytest.mark.parametrize(
    "mode, kind",
    [
        (Mode.STRUCTURED, wire.Command.BLOCK_STATUS),
        (Mode.EXTENDED, wire.Command.READ),
        (Mode.EXTENDED, wire.Command.WRITE),
    ],
)
def test_there_may_be_no_usual_reply(mode, kind):
    session = Session(mode)
    command = session.add(kind, 4)
    assert session.replies.take_usual(command, simple(command)) == 0
    assert session.replies.take_usual(command, session.none(command)) == 0


# Simple replies


def test_simple_read():
    session = Session(Mode.SIMPLE)
    command = session.add(wire.Command.READ, 4)
    assert session.feed(simple(command, 0, b"data")) == [command]
    assert command.view == b"data"
    assert command.error is None
    assert len(session.replies) == 0


def test_simple_error():
    """A read that fails has no payload."""
    session = Session(Mode.SIMPLE)
    command = session.add(wire.Command.READ, 4)
    assert session.feed(simple(command, 5)) == [command]
    assert command.error.code == 5
    assert command.view == b"????"


@pytest.mark.parametrize("kind", [wire.Command.WRITE, wire.Command.FLUSH, wire.Command.WRITE_ZEROES])
@pytest.mark.parametrize("mode", [Mode.SIMPLE, Mode.STRUCTURED])
def test_simple_without_payload(mode, kind):
    session = Session(mode)
    first, second = session.add(kind), session.add(kind)
    assert session.feed(simple(second) + simple(first, 28)) == [second, first]
    assert second.error is None
    assert first.error.code == 28


@pytest.mark.parametrize("kind", [wire.Command.READ, wire.Command.BLOCK_STATUS])
def test_simple_reply_where_only_chunks_fit(kind):
    session = Session()
    command = session.add(kind, 4)
    other = session.add(wire.Command.FLUSH)
    with pytest.raises(ProtocolError, match="simple reply"):
        session.feed(simple(command, 0, b"data") + simple(other))


def test_simple_reply_in_extended_mode():
    session = Session(Mode.EXTENDED)
    command = session.add(wire.Command.FLUSH)
    with pytest.raises(ProtocolError, match="begins with 0x67446698"):
        session.feed(simple(command) + bytes(16))


def test_structured_reply_in_simple_mode():
    session = Session(Mode.SIMPLE)
    command = session.add(wire.Command.READ, 4)
    with pytest.raises(ProtocolError, match="begins with 0x668e33ef"):
        session.feed(Session().data(command, 0, b"data", 1))


def test_simple_reply_amid_chunks():
    session = Session()
    command = session.add(wire.Command.WRITE, 4)
    with pytest.raises(ProtocolError, match="amid its chunks"):
        session.feed(session.error(command, flags=0) + simple(command))


# Reads in chunks


def test_read(session):
    command = session.add(wire.Command.READ, 4)
    assert session.feed(session.data(command, 0, b"data", flags=1)) == [command]
    assert command.view == b"data"


def test_read_in_pieces_of_any_order(session):
    command = session.add(wire.Command.READ, 8)
    chunks = [session.data(command, 4, b"ef"), session.hole(command, 2, 2), session.data(command, 0, b"ab")]
    assert session.feed(b"".join(chunks) + session.data(command, 6, b"gh", flags=1)) == [command]
    assert command.view == b"ab\0\0efgh"


def test_read_ends_with_an_empty_chunk(session):
    command = session.add(wire.Command.READ, 2)
    assert session.feed(session.hole(command, 0, 2) + session.none(command)) == [command]
    assert command.view == b"\0\0"


def test_interleaved_reads(session):
    first, second = session.add(wire.Command.READ, 4), session.add(wire.Command.READ, 4, offset=0)
    stream = session.data(second, 0, b"AB") + session.data(first, 0, b"ab") + session.data(second, 2, b"CD", flags=1)
    assert session.feed(stream) == [second]
    assert session.feed(session.data(first, 2, b"cd", flags=1)) == [first]
    assert (first.view, second.view) == (b"abcd", b"ABCD")


def test_error_after_data(session):
    command = session.add(wire.Command.READ, 4)
    session.feed(session.data(command, 0, b"ab") + session.error(command, 5, b"bad\nsector"))
    assert (command.error.code, command.error.message) == (5, "bad sector")


def test_error_offset(session):
    command = session.add(wire.Command.READ, 4)
    payload = wire.ERROR.pack(5, 3) + b"bad" + struct.pack(">Q", OFFSET + 3)
    session.feed(session.data(command, 0, b"abc") + session.chunk(command, Chunk.ERROR_OFFSET, payload, flags=1))
    assert (command.error.code, command.error.message) == (5, "bad")


def test_the_first_error_counts(session):
    command = session.add(wire.Command.READ, 4)
    session.feed(session.error(command, 5, flags=0) + session.error(command, 22, flags=0) + session.none(command))
    assert command.error.code == 5


def test_an_error_of_a_new_kind(session):
    command = session.add(wire.Command.READ, 4)
    payload = wire.ERROR.pack(5, 3) + b"bad and more"
    session.feed(session.chunk(command, 0x8055, payload, flags=1))
    assert (command.error.code, command.error.message) == (5, "bad")


def test_the_same_buffers_are_asked_for_again_and_again(session):
    """Nothing is remembered of commands that have ended."""
    for _ in range(100):
        command = session.add(wire.Command.READ, 4)
        session.feed(session.data(command, 0, b"data", flags=1))
    assert len(session.replies) == 0


@given(st.data())
def test_any_order_of_any_pieces(data):
    """Pieces of several reads, in any order, put every byte where it belongs."""
    session = Session(data.draw(st.sampled_from([Mode.STRUCTURED, Mode.EXTENDED])))
    chunks = []
    commands = []
    for number in range(data.draw(st.integers(1, 3))):
        length = data.draw(st.integers(1, 60))
        command = session.add(wire.Command.READ, length)
        content = random.Random(number).randbytes(length)
        commands.append((command, content))
        cuts = sorted(data.draw(st.sets(st.integers(1, length))) - {length} | {0, length})
        for start, end in zip(cuts, cuts[1:]):
            chunks.append(session.data(command, start, content[start:end]))
    stream = b"".join(data.draw(st.permutations(chunks)))
    done = session.feed(stream + b"".join(session.none(command) for command, _ in commands))
    assert done == [command for command, _ in commands]
    for command, content in commands:
        assert command.view == content
        assert command.error is None


# Chunks that are refused

OUT_OF_BOUNDS = [(-1, 1), (-OFFSET, 4), (0, 5), (3, 2), (4, 1), (10**9, 1)]


@pytest.mark.parametrize("start,length", OUT_OF_BOUNDS)
def test_data_out_of_bounds(session, start, length):
    command = session.add(wire.Command.READ, 4)
    with pytest.raises(ProtocolError):
        session.feed(session.data(command, start, b"x" * length))
    assert command.view == b"????"


@pytest.mark.parametrize("start,length", [*OUT_OF_BOUNDS, (0, 2**32 - 1), (0, 0)])
def test_hole_out_of_bounds(session, start, length):
    command = session.add(wire.Command.READ, 4)
    with pytest.raises(ProtocolError):
        session.feed(session.hole(command, start, length))
    assert command.view == b"????"


@pytest.mark.parametrize("start,length", [(0, 1), (1, 2), (0, 6), (2, 2), (1, 4), (3, 1), (4, 1), (5, 1)])
def test_data_twice(session, start, length):
    command = session.add(wire.Command.READ, 8)
    first = session.data(command, 0, b"a") + session.data(command, 2, b"cd") + session.data(command, 4, b"ef")
    with pytest.raises(ProtocolError, match="twice"):
        session.feed(first + session.data(command, start, b"x" * length))
    assert command.view == b"a?cdef??"


def bad_chunks(session, command):
    """Chunks that break a rule, by name."""
    error = wire.ERROR.pack
    offset = struct.pack(">Q", OFFSET + 4)
    return {
        "unknown flags": session.data(command, 0, b"data", flags=3),
        "unknown type": session.chunk(command, 99, b"what"),
        "empty chunk amid": session.chunk(command, Chunk.NONE),
        "empty chunk with payload": session.chunk(command, Chunk.NONE, b"x", flags=1),
        "data without offset": session.chunk(command, Chunk.OFFSET_DATA, b"x" * 7),
        "data without data": session.chunk(command, Chunk.OFFSET_DATA, b"x" * 8),
        "data of 4 GiB": session.chunk(command, Chunk.OFFSET_DATA, length=2**32 - 1),
        "hole too short": session.chunk(command, Chunk.OFFSET_HOLE, b"x" * 11),
        "hole too long": session.chunk(command, Chunk.OFFSET_HOLE, b"x" * 13),
        "status of a read": session.chunk(command, Chunk.BLOCK_STATUS, b"x" * 12),
        "extended status of a read": session.chunk(command, Chunk.BLOCK_STATUS_EXT, b"x" * 24),
        "missing bytes": session.data(command, 0, b"dat", flags=1),
        "nothing at all": session.none(command),
        "error too short": session.chunk(command, Chunk.ERROR, b"x" * 5, flags=1),
        "error of 4 GiB": session.chunk(command, Chunk.ERROR, length=2**32 - 1),
        "error zero": session.chunk(command, Chunk.ERROR, error(0, 0), flags=1),
        "message too long": session.chunk(command, Chunk.ERROR, error(5, 4) + b"abc", flags=1),
        "message too short": session.chunk(command, Chunk.ERROR, error(5, 2) + b"abc", flags=1),
        "error without offset": session.chunk(command, Chunk.ERROR_OFFSET, error(5, 0), flags=1),
        "error out of bounds": session.chunk(command, Chunk.ERROR_OFFSET, error(5, 0) + offset, flags=1),
        "new error too short": session.chunk(command, 0x8055, error(5, 1), flags=1),
    }


@pytest.mark.parametrize("name", bad_chunks(Session(), SentCommand(wire.Command.READ, OFFSET, 4)))
def test_bad_chunk(session, name):
    command = session.add(wire.Command.READ, 4)
    with pytest.raises(ProtocolError):
        session.feed(bad_chunks(session, command)[name])


def test_unknown_cookie(session):
    command = session.add(wire.Command.READ, 4)
    command.cookie = 4711
    with pytest.raises(ProtocolError, match="request 4711, which is not under way"):
        session.feed(session.data(command, 0, b"data", flags=1))


def test_reply_after_the_last_one(session):
    command = session.add(wire.Command.READ, 4)
    chunk = session.data(command, 0, b"data", flags=1)
    with pytest.raises(ProtocolError, match="not under way"):
        session.feed(chunk + chunk)


def test_extended_reply_about_another_offset():
    session = Session(Mode.EXTENDED)
    command = session.add(wire.Command.READ, 4)
    with pytest.raises(ProtocolError, match="about offset 5"):
        session.feed(session.chunk(command, Chunk.NONE, flags=1, offset=5))


def test_garbage(session):
    session.add(wire.Command.READ, 4)
    with pytest.raises(ProtocolError, match="begins with"):
        session.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)


def test_structured_write(session):
    """A server may answer everything with chunks."""
    good, bad = session.add(wire.Command.WRITE), session.add(wire.Command.WRITE)
    assert session.feed(session.error(bad, 28, b"full") + session.none(good)) == [bad, good]
    assert good.error is None
    assert bad.error.message == "full"


def test_data_for_a_write(session):
    command = session.add(wire.Command.WRITE, 4)
    with pytest.raises(ProtocolError, match="chunk of type 1"):
        session.feed(session.data(command, 0, b"data", flags=1))


# Block status


def test_block_status(session):
    command = session.add(wire.Command.BLOCK_STATUS, 1000)
    stream = session.status(command, 2, (1000, 1)) + session.status(command, 1, (400, 0), (600, 3), flags=1)
    assert session.feed(stream) == [command]
    width = "Q" if session.mode is Mode.EXTENDED else "I"
    assert command.extents == {1: struct.pack(f">4{width}", 400, 0, 600, 3), 2: struct.pack(f">2{width}", 1000, 1)}


def test_block_status_error(session):
    command = session.add(wire.Command.BLOCK_STATUS, 1000)
    session.feed(session.status(command, 1, (1000, 0)) + session.error(command, 22))
    assert command.error.code == 22


def test_extended_count_may_be_left_out():
    session = Session(Mode.EXTENDED, {1: "base:allocation"})
    command = session.add(wire.Command.BLOCK_STATUS, 1000)
    payload = struct.pack(">IIQQ", 1, 0, 1000, 0)
    assert session.feed(session.chunk(command, Chunk.BLOCK_STATUS_EXT, payload, flags=1)) == [command]


def bad_status(session, command):
    kind = Chunk.BLOCK_STATUS_EXT if session.mode is Mode.EXTENDED else Chunk.BLOCK_STATUS
    prefix = 8 if session.mode is Mode.EXTENDED else 4
    size = 16 if session.mode is Mode.EXTENDED else 8
    return {
        "a context is missing": session.status(command, 1, (1000, 0), flags=1),
        "a context is unknown": session.status(command, 3, (1000, 0)),
        "a context comes twice": session.status(command, 1, (1000, 0)) * 2,
        "no extents": session.status(command, 1),
        "half an extent": session.chunk(command, kind, b"x" * (prefix + size + 1)),
        "half a header": session.chunk(command, kind, b"x" * (prefix - 1)),
        "nothing": session.chunk(command, kind),
        "too many": session.chunk(command, kind, length=prefix + size * (replies.MAX_EXTENTS + 1)),
        "4 GiB": session.chunk(command, kind, length=2**32 - size + prefix),
        "data": session.data(command, 0, b"data"),
    }


@pytest.mark.parametrize("name", bad_status(Session(), SentCommand(wire.Command.BLOCK_STATUS, OFFSET, 1000)))
def test_bad_status(session, name):
    command = session.add(wire.Command.BLOCK_STATUS, 1000)
    with pytest.raises(ProtocolError):
        session.feed(bad_status(session, command)[name])


def test_extended_count_is_wrong():
    session = Session(Mode.EXTENDED, {1: "base:allocation"})
    command = session.add(wire.Command.BLOCK_STATUS, 1000)
    payload = struct.pack(">IIQQ", 1, 2, 1000, 0)
    with pytest.raises(ProtocolError, match="claims another length"):
        session.feed(session.chunk(command, Chunk.BLOCK_STATUS_EXT, payload, flags=1))


@pytest.mark.parametrize("mode,kind", [(Mode.STRUCTURED, Chunk.BLOCK_STATUS_EXT), (Mode.EXTENDED, Chunk.BLOCK_STATUS)])
def test_status_of_the_other_width(mode, kind):
    session = Session(mode)
    command = session.add(wire.Command.BLOCK_STATUS, 1000)
    with pytest.raises(ProtocolError, match="chunk of type"):
        session.feed(session.chunk(command, kind, b"x" * 24))


# Limits


@pytest.mark.parametrize("count,is_good", [(1024, True), (1025, False)])
def test_most_errors(session, count, is_good):
    command = session.add(wire.Command.READ, 4)
    stream = session.error(command, flags=0) * count + session.none(command)
    if is_good:
        assert session.feed(stream) == [command]
    else:
        with pytest.raises(ProtocolError, match="does not stop"):
            session.feed(stream)


@pytest.mark.parametrize("count,is_good", [(1024, True), (1025, False)])
def test_most_fragments(session, count, is_good):
    """The last one joins all that touch it, so that the count falls."""
    command = session.add(wire.Command.READ, 2 * count)
    stream = b"".join(session.data(command, start, b"x") for start in range(0, 2 * count, 2))
    if is_good:
        rest = b"".join(session.data(command, start, b"y") for start in range(1, 2 * count, 2))
        assert session.feed(stream + rest + session.none(command)) == [command]
        assert command.view == b"xy" * count
    else:
        with pytest.raises(ProtocolError, match="too many fragments"):
            session.feed(stream)


@pytest.mark.parametrize("count,is_good", [(1, True), (2**20 - 1, True), (2**20, False)])
def test_longest_list_of_extents(session, count, is_good):
    command = session.add(wire.Command.BLOCK_STATUS, 1000)
    prefix, size = (8, 16) if session.mode is Mode.EXTENDED else (4, 8)
    kind = Chunk.BLOCK_STATUS_EXT if session.mode is Mode.EXTENDED else Chunk.BLOCK_STATUS
    head = session.chunk(command, kind, length=prefix + count * size)
    context = struct.pack(">II", 1, count) if prefix == 8 else struct.pack(">I", 1)
    with pytest.raises(EOFError if is_good else ProtocolError):
        session.feed(head + context)


def test_longest_error(session):
    """A string of 4096 bytes, and where it happened."""
    command = session.add(wire.Command.READ, 4)
    payload = wire.ERROR.pack(5, 4096) + b"m" * 4096 + struct.pack(">Q", OFFSET)
    assert session.feed(session.chunk(command, Chunk.ERROR_OFFSET, payload, flags=1)) == [command]
    assert command.error.code == 5
    command = session.add(wire.Command.READ, 4)
    with pytest.raises(ProtocolError, match="an error of 4111 bytes"):
        session.feed(session.chunk(command, 0x8055, payload + b"?", flags=1))


@pytest.mark.parametrize("where,is_good", [(-1, False), (0, True), (3, True), (4, False)])
def test_where_an_error_happened(session, where, is_good):
    command = session.add(wire.Command.READ, 4)
    payload = wire.ERROR.pack(5, 0) + struct.pack(">Q", OFFSET + where)
    stream = session.chunk(command, Chunk.ERROR_OFFSET, payload, flags=1)
    if is_good:
        assert session.feed(stream) == [command]
    else:
        with pytest.raises(ProtocolError, match=f"an error at {OFFSET + where} in the reply to read of 4 bytes"):
            session.feed(stream)


# What is asked of the caller


def next_size(session):
    return len(next(iter(session.replies)))


def test_no_more_is_asked_for_than_must_come():
    """A simple reply has 16 bytes, a chunk 20, an extended one 32."""
    for mode, kind, size in [
        (Mode.SIMPLE, wire.Command.READ, 16),
        (Mode.STRUCTURED, wire.Command.WRITE, 16),
        (Mode.STRUCTURED, wire.Command.READ, 20),
        (Mode.EXTENDED, wire.Command.WRITE, 32),
    ]:
        session = Session(mode)
        session.add(kind, 4)
        assert next_size(session) == size
    session = Session()
    session.feed(simple(session.add(wire.Command.WRITE)))
    session.add(wire.Command.READ, 4)
    assert next_size(session) == 20


def test_how_much_is_to_be_read(session):
    first, second = session.add(wire.Command.READ, 4), session.add(wire.Command.READ, 8)
    session.add(wire.Command.WRITE, 16)
    assert session.replies.payload == 12
    session.feed(session.data(first, 0, b"data", flags=1))
    assert session.replies.payload == 8
    session.feed(session.error(second))
    assert session.replies.payload == 0


def test_cookies(session):
    """Numbers of 64 bits; the one behind the last is the first."""
    assert [session.add(wire.Command.FLUSH).cookie for _ in range(3)] == [0, 1, 2]
    session.replies._next_cookie = 2**64 - 1
    assert [session.add(wire.Command.FLUSH).cookie for _ in range(2)] == [2**64 - 1, 0]


# Truncation


def test_truncated_at_each_byte(session):
    """Whatever is missing, we wait for it."""
    for size in range(100):
        session = Session(session.mode)
        command = session.add(wire.Command.READ, 8)
        stream = session.data(command, 0, b"abcd") + session.hole(command, 4, 4, flags=1)
        if size >= len(stream):
            break
        with pytest.raises(EOFError):
            session.feed(stream[:size])
        assert len(session.replies) == 1
