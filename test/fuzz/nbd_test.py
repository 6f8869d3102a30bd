"""Whatever an NBD server sends ends in a value, a failed request or a dead connection, within bounded memory and time.

The bytes are those of a good server that were changed, or anything at all.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct

import pytest
from fuzz.mutations import mutated
from fuzz.nbd_inputs import REPLIES, ask
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.geometry.extent import ZeroExtent
from ovirt_imageio.nbd import handshake, status, wire
from ovirt_imageio.nbd.client import Client
from ovirt_imageio.nbd.errors import ConnectionDead, ProtocolError, Refused, RequestFailed
from ovirt_imageio.nbd.handshake import Agreement, Export, Receive
from ovirt_imageio.nbd.ledger import Ledger
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.replies import Data, Done, Hole, Replies, SentCommand
from ovirt_imageio.nbd.requests import Rules
from ovirt_imageio.nbd.stream import ServerStream
from ovirt_imageio.nbd.wire import Chunk, ExportFlag, Info, Mode, Option, Reply

# No script is longer than this, so a loop of more steps than this does not come to an end.
MAX_STEPS = 100_000

numbers = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 255, 4096, 2**16 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)


# Negotiation

option_replies = st.builds(
    lambda option, kind, payload: wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(payload)) + payload,
    st.sampled_from(list(Option)),
    st.sampled_from(list(Reply)) | numbers,
    st.binary(max_size=40)
    | st.builds(
        lambda size, flags: struct.pack(">HQH", Info.EXPORT, size, flags), st.integers(0, 2**64 - 1), st.just(1)
    )
    | st.builds(lambda *sizes: struct.pack(">HIII", Info.BLOCK_SIZE, *sizes), numbers, numbers, numbers)
    | st.builds(lambda number: struct.pack(">I", number) + b"base:allocation", numbers),
)


def good_negotiation():
    def reply(option, kind=Reply.ACK, payload=b""):
        return wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(payload)) + payload

    return b"".join(
        [
            wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, 3),
            reply(Option.EXTENDED_HEADERS, Reply.ERR_UNSUP),
            reply(Option.STRUCTURED_REPLY),
            reply(Option.LIST_META_CONTEXT, Reply.META_CONTEXT, b"\0\0\0\0qemu:dirty-bitmap:a"),
            reply(Option.LIST_META_CONTEXT),
            reply(Option.SET_META_CONTEXT, Reply.META_CONTEXT, b"\0\0\0\0base:allocation"),
            reply(Option.SET_META_CONTEXT, Reply.META_CONTEXT, b"\0\0\0\1qemu:dirty-bitmap:a"),
            reply(Option.SET_META_CONTEXT),
            reply(Option.INFO, Reply.INFO, struct.pack(">HIII", Info.BLOCK_SIZE, 1, 4096, 2**20)),
            reply(Option.INFO),
            reply(Option.GO, Reply.INFO, struct.pack(">HQH", Info.EXPORT, 2**30, 1)),
            reply(Option.GO),
        ]
    )


def negotiate(data):
    """Negotiate with a server that sends these bytes and hangs up."""
    steps = handshake.negotiate("disk", dirty=True)
    answer = None
    with contextlib.suppress(EOFError, ProtocolError, Refused):
        for _ in range(MAX_STEPS):
            try:
                step = steps.send(answer)
            except StopIteration as end:
                check_export(end.value)
                return
            answer = b""
            if isinstance(step, Receive):
                assert 0 < step.size <= wire.MAX_OPTION_REPLY
                if len(data) < step.size:
                    raise EOFError
                answer, data = data[: step.size], data[step.size :]
        raise AssertionError("endless")


def check_export(export):
    assert 0 <= export.size < 2**63
    assert 0 < export.minimum_block <= export.maximum_block
    assert export.maximum_block % export.minimum_block == 0


@given(st.data())
def test_changed_negotiation(data):
    negotiate(mutated(good_negotiation(), data.draw))


@given(st.binary(max_size=300))
def test_any_negotiation(data):
    negotiate(wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, 3) + data)
    negotiate(data)


@given(st.lists(option_replies, max_size=30))
def test_any_option_replies(replies):
    negotiate(wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, 3) + b"".join(replies))


# Replies

OFFSET = 4096
LENGTH = 64
CONTEXTS = {0: "base:allocation", 1: "qemu:allocation-depth"}


def chunk(mode, flags, kind, cookie, payload, length=None):
    length = len(payload) if length is None else length
    if mode is Mode.EXTENDED:
        return wire.EXTENDED_REPLY.pack(mode.magic, flags, kind, cookie, OFFSET, length) + payload
    return wire.STRUCTURED_REPLY.pack(wire.STRUCTURED_REPLY_MAGIC, flags, kind, cookie, length) + payload


def good_replies(mode):
    if mode is Mode.SIMPLE:
        return b"".join(wire.SIMPLE_REPLY.pack(mode.magic, 0, n) + bytes([n]) * LENGTH for n in range(2))
    width, kind = ("Q", Chunk.BLOCK_STATUS_EXT) if mode is Mode.EXTENDED else ("I", Chunk.BLOCK_STATUS)
    count = b"\0\0\0\1" if mode is Mode.EXTENDED else b""
    extents = [struct.pack(">I", number) + count + struct.pack(f">2{width}", LENGTH, 3) for number in CONTEXTS]
    return b"".join(
        [
            chunk(mode, 0, Chunk.OFFSET_DATA, 0, struct.pack(">Q", OFFSET) + b"x" * 32),
            chunk(mode, 0, Chunk.OFFSET_HOLE, 1, struct.pack(">QI", OFFSET + 8, LENGTH - 8)),
            chunk(mode, 1, Chunk.OFFSET_DATA, 0, struct.pack(">Q", OFFSET + 32) + b"x" * 32),
            chunk(mode, 0, kind, 2, extents[0]),
            chunk(mode, 1, Chunk.OFFSET_DATA, 1, struct.pack(">Q", OFFSET) + b"x" * 8),
            chunk(mode, 1, kind, 2, extents[1]),
        ]
    )


any_chunks = st.builds(
    chunk,
    st.sampled_from([Mode.STRUCTURED, Mode.EXTENDED]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from(list(Chunk)),
    st.integers(0, 3),
    st.binary(max_size=40)
    | st.builds(lambda at, data: struct.pack(">Q", OFFSET + at) + data, st.integers(0, 70), st.binary(max_size=70))
    | st.builds(lambda at, size: struct.pack(">QI", OFFSET + at, size), st.integers(0, 70), numbers)
    | st.builds(lambda code, size: struct.pack(">IH", code, size), numbers, st.integers(0, 20)),
    st.none() | numbers,
)


def receive(mode, data):
    """Take replies of a server that sends these bytes and hangs up."""
    export = Export("", 2**40, ExportFlag(0), mode, CONTEXTS)
    replies = Replies(export)
    guard = memoryview(bytearray(b"?" * 3 * LENGTH))
    reads = [SentCommand(wire.Command.READ, OFFSET, LENGTH, guard[LENGTH : 2 * LENGTH]) for _ in range(2)]
    commands = [*reads, SentCommand(wire.Command.BLOCK_STATUS, OFFSET, LENGTH), SentCommand(wire.Command.FLUSH, 0, 0)]
    for command in commands if mode is not Mode.SIMPLE else [*reads, commands[-1]]:
        replies.add(command)
    with contextlib.suppress(EOFError, ProtocolError):
        for step in itertools.islice(replies, MAX_STEPS):
            if isinstance(step, Done):
                check_done(step.command, export)
                if not replies:
                    break
            elif isinstance(step, Hole):
                step.command.view[step.start : step.start + step.length] = bytes(step.length)
            else:
                view = step.command.view[step.start : step.start + step.length] if isinstance(step, Data) else step
                assert isinstance(step, Data) is False or len(view) == step.length > 0
                if len(data) < len(view):
                    raise EOFError
                view[:], data = data[: len(view)], data[len(view) :]
        else:
            raise AssertionError("endless")
    assert guard[:LENGTH] == guard[2 * LENGTH :] == b"?" * LENGTH


def check_done(command, export):
    if command.error is not None:
        assert command.error.code and command.error.message.isprintable()
    elif command.kind == wire.Command.READ:
        assert command.is_covered
    elif command.kind == wire.Command.BLOCK_STATUS:
        for packed in command.extents.values():
            with contextlib.suppress(ProtocolError):
                assert all(length > 0 for length, _ in status.decode(export, packed))


@given(st.sampled_from(list(Mode)), st.data())
def test_changed_replies(mode, data):
    receive(mode, mutated(good_replies(mode), data.draw))


@given(st.sampled_from(list(Mode)), st.binary(max_size=300))
def test_any_replies(mode, data):
    receive(mode, data)


@given(st.sampled_from([Mode.STRUCTURED, Mode.EXTENDED]), st.lists(any_chunks, max_size=20))
def test_any_chunks(mode, chunks):
    receive(mode, b"".join(chunks))


# What was asked for where the table tells what a server sends, by cookie.
ASKED = [
    (wire.Command.READ, OFFSET, LENGTH),
    (wire.Command.READ, OFFSET, LENGTH),
    (wire.Command.BLOCK_STATUS, OFFSET, LENGTH),
    (wire.Command.FLUSH, 0, 0),
]
# What every server of the table has; simple replies do not go with contexts.
CONTEXT = {Mode.SIMPLE: {}, Mode.STRUCTURED: {0: "base:allocation"}, Mode.EXTENDED: {0: "base:allocation"}}


def ask_client(mode, data):
    """Return how many commands end well, and how many fail, when a server sends this; and the verdict of our client."""
    replies = Replies(Export("", 2**40, ExportFlag(0), mode, CONTEXT[mode]))
    for asked in ASKED:
        replies.add(SentCommand(*asked))
    good = failed = 0
    try:
        for step in replies:
            if isinstance(step, Done):
                good += step.command.error is None
                failed += step.command.error is not None
                if not data:
                    break
            elif not isinstance(step, Hole):
                size = step.length if isinstance(step, Data) else len(step)
                if size > len(data):
                    return (good, failed), "more"
                if not isinstance(step, Data):
                    step[:] = data[:size]
                data = data[size:]
    except ProtocolError:
        return (good, failed), "fault"
    return (good, failed), "good"


def ask_gate(mode, data):
    """Return the verdict of our gate: of the part of it that knows the protocol."""
    offer = Offer(2**40, ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH)
    book = Ledger(Rules(offer, Agreement(mode, CONTEXT[mode])), mode)
    for cookie, (command, offset, length) in enumerate(ASKED):
        request = bytearray(ask(command, cookie, offset, length, long=mode is Mode.EXTENDED))
        list(book.take_requests(memoryview(request)))
    try:
        book.take_replies(memoryview(data))
    except ProtocolError:
        return "fault"
    return "good" if book.is_between_replies else "more"


@pytest.mark.parametrize("name", REPLIES)
def test_inputs(name):
    mode, data, ended, of_client, of_gate = REPLIES[name]
    assert ask_client(mode, data) == (ended, of_client)
    assert ask_gate(mode, data) == of_gate


# The whole client


@given(st.data())
def test_client(data):
    script = data.draw(st.sampled_from(["changed", "chunks"]))
    if script == "changed":
        sent = mutated(good_replies(Mode.STRUCTURED), data.draw)
    else:
        sent = b"".join(data.draw(st.lists(any_chunks, max_size=10)))
    use_client(sent)


def use_client(sent):
    """With real sockets: the client returns or raises, and a dead connection is closed."""
    ours, theirs = socket.socketpair()
    export = Export("", 2**40, ExportFlag(0), Mode.STRUCTURED, CONTEXTS)
    with theirs, contextlib.closing(Client(ServerStream(ours, 5), export)) as nbd:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        view = memoryview(bytearray(LENGTH))
        try:
            for _ in range(2):
                nbd.read(OFFSET, view)
            found = list(status.zero_extents(nbd, OFFSET, LENGTH))
            assert sum(extent.length for extent in found) == LENGTH
            assert all(isinstance(extent, ZeroExtent) for extent in found)
        except RequestFailed:
            pass
        except ConnectionDead as e:
            assert str(e)
