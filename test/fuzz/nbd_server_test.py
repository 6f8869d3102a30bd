"""Whatever an NBD client and server send through us is understood, or ends in the fault of one of them; and no request
passes that was not offered, no reply that was not asked for.
"""

from __future__ import annotations

import struct

from fuzz.mutations import mutated
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.nbd import offer
from ovirt_imageio.nbd.errors import ClientFault, ProtocolError
from ovirt_imageio.nbd.handshake import Agreement, Receive
from ovirt_imageio.nbd.ledger import Ledger
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.requests import Rules
from ovirt_imageio.nbd.wire import ExportFlag, Mode

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
    agreed = Agreement(mode, {} if mode is Mode.SIMPLE else {0: "base:allocation"})
    book = Ledger(Rules(OFFER, agreed), mode)
    sent = mutated(b"".join(ask(mode, *each) for each in asked), choices.draw)
    try:
        check_requests(book, sent)
    except ClientFault as fault:
        assert str(fault).isprintable()
    came = mutated(b"".join(reply(mode, *each, choices.draw(st.booleans())) for each in answered), choices.draw)
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
    for part in book.take_requests(memoryview(data)):
        assert position <= part.start <= part.end <= len(data)
        assert (part.refused is None) == (not part.code)
        position = part.end
    assert position <= book.taken <= len(data)
