"""Whatever an NBD client and server send through us is understood, or ends in the fault of one of them; and no request
passes that was not offered, no reply that was not asked for. What a client gets to hear, and what becomes of the disk,
does not depend on whether we are the server or stand before it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import NamedTuple

import pytest
from fakes.nbdexport import Failures, SocketChannel, Watching
from fakes.waiting import DEADLINE
from fuzz.mutations import mutated
from fuzz.nbd_inputs import REQUESTS as INPUTS
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.nbd import export, offer, requests
from ovirt_imageio.nbd.errors import ClientFault, ProtocolError
from ovirt_imageio.nbd.gate import Gate
from ovirt_imageio.nbd.handshake import Agreement, Receive
from ovirt_imageio.nbd.inbox import Inbox
from ovirt_imageio.nbd.ledger import Ledger
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.requests import Request, Rules
from ovirt_imageio.nbd.wire import ExportFlag, Mode
from ovirt_imageio.net.stream import Stream

SIZE = 64 * 1024
OFFER = Offer(SIZE, ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH, contexts={0: "base:allocation"})

# An option may be this long before it is answered; no negotiation takes more steps.
LONGEST = 64 * 1024
MAX_STEPS = 1000


def option(number: int, payload: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", number, len(payload)) + payload


GOOD_NEGOTIATION = b"".join(
    [
        struct.pack(">I", 3),
        option(11),
        option(8),
        option(3),
        option(9, struct.pack(">II", 0, 0)),
        option(10, struct.pack(">II", 0, 1) + struct.pack(">I", 15) + b"base:allocation"),
        option(6, struct.pack(">IHHH", 0, 2, 1, 3)),
        option(7, struct.pack(">IH", 0, 0)),
    ]
)


def negotiate(data: bytes) -> None:
    """Negotiate with a client that sends these bytes, and leaves."""
    steps = offer.welcome(OFFER)
    answer = None
    for _ in range(MAX_STEPS):
        try:
            step = steps.send(answer)
        except StopIteration as end:
            assert end.value is None or isinstance(end.value, Agreement)
            return
        except ClientFault as fault:
            assert str(fault).isprintable()
            return
        answer = b""
        if isinstance(step, Receive):
            assert 0 < step.size <= LONGEST
            if len(data) < step.size:
                return
            answer, data = data[: step.size], data[step.size :]
    raise AssertionError("endless")


@given(st.data())
def test_changed_negotiation(choices):
    negotiate(mutated(GOOD_NEGOTIATION, choices.draw))


@given(st.binary(max_size=300))
def test_any_negotiation(data):
    negotiate(data)
    negotiate(struct.pack(">I", 1) + data)


def ask(mode: Mode, command: int, cookie: int, offset: int, length: int) -> bytes:
    payload = bytes(length) if command == 1 else b""
    if mode is Mode.EXTENDED:
        return struct.pack(">IHHQQQ", 0x21E41C71, 32 if payload else 0, command, cookie, offset, length) + payload
    return struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, offset, length) + payload


def reply(mode: Mode, kind: int, cookie: int, payload: bytes, done: bool) -> bytes:
    if mode is Mode.EXTENDED:
        return struct.pack(">IHHQQQ", 0x6E8A278C, done, kind, cookie, 0, len(payload)) + payload
    if mode is Mode.STRUCTURED and kind:
        return struct.pack(">IHHQI", 0x668E33EF, done, kind, cookie, len(payload)) + payload
    return struct.pack(">IIQ", 0x67446698, 0, cookie) + payload


REQUESTS = st.tuples(
    st.sampled_from([0, 1, 2, 3, 4, 6, 7, 99]), st.integers(0, 3), st.integers(0, SIZE), st.integers(0, 600)
)
REPLIES = st.tuples(st.sampled_from([0, 1, 2, 5, 6, 99, 0x8001, 0x8002]), st.integers(0, 3), st.binary(max_size=40))


@given(st.sampled_from([*Mode]), st.lists(REQUESTS, max_size=6), st.lists(REPLIES, max_size=6), st.data())
def test_both_directions(mode, asked, answered, choices):
    sent = mutated(b"".join(ask(mode, *each) for each in asked), choices.draw)
    came = mutated(b"".join(reply(mode, *each, choices.draw(st.booleans())) for each in answered), choices.draw)
    check_both_directions(mode, sent, came)


def check_both_directions(mode: Mode, sent: bytes, came: bytes) -> None:
    """Show the ledger what a client sent, and then what a server sent."""
    agreed = Agreement(mode, {} if mode is Mode.SIMPLE else {0: "base:allocation"})
    book = Ledger(Rules(OFFER, agreed), mode)
    try:
        check_requests(book, sent)
    except ClientFault as fault:
        assert str(fault).isprintable()
    under_way = len(book)
    try:
        end = book.take_replies(memoryview(came))
    except ProtocolError as error:
        assert str(error).isprintable()
    else:
        assert -1 <= end <= len(came)
    # What was moved was asked for, within the disk, and only once.
    assert len(book) + len(book.moved) <= under_way
    for moved in book.moved:
        assert moved.offset + moved.length <= SIZE


def check_requests(book: Ledger, data: bytes) -> None:
    """Show the ledger what a client sent: the parts that pass or are refused follow one another."""
    position = 0
    # It may change flags where they lie.
    for part in book.take_requests(memoryview(bytearray(data))):
        assert position <= part.start <= part.end <= len(data)
        assert (part.refused is None) == (not part.code)
        position = part.end
    assert position <= book.taken <= len(data)


# --- The server, and the gate before a server ------------------------------------------------------------------------

# The disk is larger than what the client was offered: the rest is not its business.
DISK = bytes(range(256)) * 512
FLAGS = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA | ExportFlag.SEND_WRITE_ZEROES
FLAGS |= ExportFlag.SEND_DF
TICKET = Offer(SIZE, FLAGS, contexts={0: "base:allocation"})
WHOLE = Offer(len(DISK), FLAGS, contexts={7: "base:allocation"})


class Outcome(NamedTuple):
    """What a client heard, its end, "left" or "fault", and the disk."""

    answers: bytes
    end: str
    disk: bytes


class Recording:
    """A channel from a client that sends these bytes and leaves."""

    def __init__(self, data: bytes) -> None:
        self._left = data
        self.answers = b""

    def readinto(self, view: memoryview) -> int:
        """Read what it sends."""
        part, self._left = self._left[: len(view)], self._left[len(view) :]
        view[: len(part)] = part
        return len(part)

    wait = readinto

    def send_parts(self, parts) -> None:
        """Note what it hears."""
        self.answers += b"".join(parts)


def agreed_on(mode: Mode, number: int = 0) -> Agreement:
    return Agreement(mode, {} if mode is Mode.SIMPLE else {number: "base:allocation"})


def serve(mode: Mode, data: bytes) -> Outcome:
    """Serve the client ourselves."""
    disk = bytearray(DISK)
    channel = Recording(data)
    end = "left"
    try:
        export.answer(Inbox(channel), channel, MemoryBackend(disk), TICKET, agreed_on(mode), Watching())
    except ClientFault as fault:
        assert str(fault).isprintable()
        end = "fault"
    return Outcome(channel.answers, end, bytes(disk))


def stand_before(mode: Mode, data: bytes) -> Outcome:
    """Stand between the client and a server, which is ours, has the whole disk, and numbers contexts in its own way."""
    disk = bytearray(DISK)
    end = "left"
    with contextlib.ExitStack() as scope:
        ours, theirs, near, far = (scope.enter_context(end) for _ in range(2) for end in socket.socketpair())
        server = threading.Thread(target=answer, args=(far, mode, disk))
        server.start()
        scope.callback(server.join, DEADLINE)
        scope.callback(near.shutdown, socket.SHUT_RDWR)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        channel = SocketChannel(ours, DEADLINE)
        ledger = Ledger(Rules(TICKET, agreed_on(mode)), mode, {7: 0})
        try:
            Gate(Inbox(channel), channel, Stream(near, DEADLINE, Failures()), ledger, mode, Watching()).run()
        except ClientFault as fault:
            assert str(fault).isprintable()
            end = "fault"
        ours.shutdown(socket.SHUT_WR)
        with theirs.makefile("rb") as file:
            answers = file.read()
    return Outcome(answers, end, bytes(disk))


def answer(sock: socket.socket, mode: Mode, disk: bytearray) -> None:
    channel = SocketChannel(sock, DEADLINE)
    with contextlib.suppress(ClientFault, OSError):
        export.answer(Inbox(channel), channel, MemoryBackend(disk), WHOLE, agreed_on(mode, 7), Watching())


def walk(mode: Mode, data: bytes) -> list[Request]:
    """Return the requests in what a client sends, up to its fault."""
    found = []
    with contextlib.suppress(ClientFault):
        position = 0
        while request := requests.find(bytearray(data), position, len(data), mode):
            found.append(request)
            position += (32 if mode is Mode.EXTENDED else 28) + request.payload
    return found


def parse(mode: Mode, asked: list[Request], answers: bytes) -> tuple[dict[int, int], dict[int, bytes]]:
    """Return the error of each cookie, and what else came for it, without the words of an error."""
    # Nothing in a simple reply tells how long it is.
    lengths = {request.cookie: request.length for request in asked if request.command == 0}
    errors: dict[int, int] = {}
    payloads: dict[int, bytes] = {}
    while answers:
        if mode is Mode.SIMPLE:
            layout = ">IIQ"
            _, code, cookie = struct.unpack_from(layout, answers)
            is_error, length = code != 0, 0 if code else lengths.get(cookie, 0)
        else:
            layout = ">IHHQQQ" if mode is Mode.EXTENDED else ">IHHQI"
            _, _, kind, cookie, *_, length = struct.unpack_from(layout, answers)
            is_error = kind & 0x8000 != 0
        answers = answers[struct.calcsize(layout) :]
        payload, answers = answers[:length], answers[length:]
        assert len(payload) == length
        if is_error and mode is not Mode.SIMPLE:
            (code,) = struct.unpack_from(">I", payload)
        errors[cookie] = code if is_error else 0
        payloads[cookie] = payloads.get(cookie, b"") + (b"" if is_error else payload)
    return errors, payloads


@given(st.sampled_from([*Mode]), st.lists(REQUESTS, max_size=6), st.data())
def test_server_or_gate(mode, asked, choices):
    data = b"".join(ask(mode, command, cookie, *rest) for cookie, (command, _, *rest) in enumerate(asked))
    compare(mode, mutated(data, choices.draw))


def compare(mode: Mode, data: bytes) -> None:
    """Fail unless it does not matter whether we are the server or stand before it."""
    served, passed = serve(mode, data), stand_before(mode, data)
    assert served.disk[SIZE:] == passed.disk[SIZE:] == DISK[SIZE:]
    found = walk(mode, data)
    if len({request.cookie for request in found}) < len(found):
        # Which of two answers is that of which is not known; a server may bear it, the gate does not.
        return
    assert served.end == passed.end
    heard, heard_too = (parse(mode, found, outcome.answers) for outcome in (served, passed))
    if served.end == "left":
        assert heard == heard_too
        assert served.disk == passed.disk
    else:
        # After a fault, neither has to send the answers that it had.
        both = heard[0].keys() & heard_too[0].keys()
        assert all(heard[0][cookie] == heard_too[0][cookie] for cookie in both)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name):
    mode, data, expected, end = INPUTS[name]
    for outcome in serve(mode, data), stand_before(mode, data):
        errors, _ = parse(mode, walk(mode, data), outcome.answers)
        assert (errors, outcome.end) == (expected, end)
        assert outcome.disk[SIZE:] == DISK[SIZE:]
