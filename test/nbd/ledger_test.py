"""Bytes pass unread, but not unchecked: whatever the pieces are in which they come."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.nbd import ledger
from ovirt_imageio.nbd.errors import ClientFault, ProtocolError
from ovirt_imageio.nbd.handshake import Agreement
from ovirt_imageio.nbd.ledger import Ledger, Moved
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.requests import Request, Rules
from ovirt_imageio.nbd.wire import ExportFlag, Mode

SIZE = 1024**2
FLAGS = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_WRITE_ZEROES
CONTEXTS = {0: "base:allocation"}

READ, WRITE, DISCONNECT, FLUSH, ZERO, STATUS = 0, 1, 2, 3, 6, 7


def open_ledger(mode: Mode = Mode.STRUCTURED, flags: ExportFlag = FLAGS) -> Ledger:
    contexts = {} if mode is Mode.SIMPLE else CONTEXTS
    return Ledger(Rules(Offer(SIZE, flags, contexts={0: "base:allocation"}), Agreement(mode, contexts)), mode)


def ask(command: int, cookie: int, offset: int = 0, length: int = 512, mode: Mode = Mode.STRUCTURED) -> bytes:
    """Return a request, with its payload."""
    payload = bytes(length) if command == WRITE else b""
    if mode is Mode.EXTENDED:
        flags = 32 if payload else 0
        return struct.pack(">IHHQQQ", 0x21E41C71, flags, command, cookie, offset, length) + payload
    return struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, offset, length) + payload


def chunk(kind: int, cookie: int, payload: bytes = b"", done: bool = True, mode: Mode = Mode.STRUCTURED) -> bytes:
    if mode is Mode.EXTENDED:
        return struct.pack(">IHHQQQ", 0x6E8A278C, done, kind, cookie, 0, len(payload)) + payload
    return struct.pack(">IHHQI", 0x668E33EF, done, kind, cookie, len(payload)) + payload


def simple(cookie: int, error: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(">IIQ", 0x67446698, error, cookie) + data


def data_of(length: int, offset: int = 0) -> bytes:
    return struct.pack(">Q", offset) + bytes(length)


def pass_requests(book: Ledger, data: bytes) -> tuple[bytes, list[tuple[int, int]]]:
    """Return what may pass, and what was refused: cookie and error."""
    passed = b""
    refused = []
    for part in book.take_requests(memoryview(data)):
        passed += data[part.start : part.end]
        if part.refused is not None:
            refused.append((part.refused.cookie, part.code))
    return passed, refused


def test_good_requests_pass_in_one_part():
    book = open_ledger()
    assert book.taken == 0
    data = ask(READ, 1) + ask(WRITE, 2) + ask(FLUSH, 3, 0, 0) + ask(ZERO, 4) + ask(STATUS, 5)
    parts = list(book.take_requests(memoryview(data)))
    assert [(part.start, part.end) for part in parts] == [(0, len(data))]
    assert len(book) == 5


def test_changes_are_told_apart():
    book = open_ledger()
    pass_requests(book, ask(READ, 1) + ask(STATUS, 2))
    assert not book.has_changes
    pass_requests(book, ask(WRITE, 3) + ask(FLUSH, 4, 0, 0))
    book.take_replies(memoryview(simple(3)))
    assert book.has_changes
    book.take_replies(memoryview(simple(4)))
    assert not book.has_changes


def test_bad_requests_do_not_pass():
    book = open_ledger()
    good, bad = ask(READ, 1), ask(WRITE, 2, SIZE)
    assert pass_requests(book, good + bad + ask(99, 3) + good[:12] + b"\0\0\0\4" + good[16:]) == (
        good + good[:12] + b"\0\0\0\4" + good[16:],
        [(2, 28), (3, 22)],
    )


def test_parts_follow_one_another():
    """None of them is empty but those that were refused, which stand where their answer belongs."""
    book = open_ledger()
    good, bad = ask(READ, 1), ask(READ, 2, SIZE)
    parts = list(book.take_requests(memoryview(bad + good + bad + ask(WRITE, 3, SIZE))))
    assert [(part.start, part.end, part.code) for part in parts] == [
        (28, 28, 22),
        (28, 56, 0),
        (84, 84, 22),
        (112, 112, 28),
    ]
    assert [part.refused is None for part in parts] == [False, True, False, False]
    assert book.taken == 3 * 28 + 28 + 512
    assert not book.is_amid_request


def test_nothing_passes_behind_the_good_bye():
    book = open_ledger()
    bye = ask(DISCONNECT, 0, 0, 0)
    assert pass_requests(book, ask(READ, 1) + bye + ask(WRITE, 2)) == (ask(READ, 1) + bye, [])
    assert book.is_over


@pytest.mark.parametrize("mode", [Mode.STRUCTURED, Mode.EXTENDED])
def test_zeroing_where_nothing_may_be_punched(mode):
    offer = Offer(SIZE, FLAGS, can_punch=False)
    book = Ledger(Rules(offer, Agreement(mode)), mode)
    others = ask(WRITE, 1, mode=mode) + ask(READ, 2, mode=mode)
    zero = ask(ZERO, 3, mode=mode)
    data = bytearray(others + zero)
    assert [(part.start, part.end) for part in book.take_requests(memoryview(data))] == [(0, len(data))]
    # NBD_CMD_FLAG_NO_HOLE
    assert data == others + zero[:4] + b"\0\2" + zero[6:]


def test_a_write_that_does_not_tell_its_payload():
    """qemu 10 sends such ones; the server behind us may be less patient."""
    good = ask(WRITE, 1, mode=Mode.EXTENDED)
    data = bytearray(good[:4] + b"\0\0" + good[6:])
    book = open_ledger(Mode.EXTENDED)
    assert [(part.start, part.end) for part in book.take_requests(memoryview(data))] == [(0, len(data))]
    # NBD_CMD_FLAG_PAYLOAD_LEN
    assert data == good


def test_a_cookie_is_used_once():
    book = open_ledger()
    with pytest.raises(ClientFault):
        pass_requests(book, ask(READ, 1) + ask(READ, 1))


def test_a_client_with_too_much_under_way_is_full():
    book = open_ledger()
    data = b"".join(ask(READ, cookie) for cookie in range(2000))
    passed, _ = pass_requests(book, data)
    assert len(passed) == 28 * ledger.MAX_PENDING
    assert book.is_full


REPLIES = {
    "data": (Mode.STRUCTURED, [ask(READ, 1)], [chunk(1, 1, data_of(512))], [Moved(READ, 0, 512)]),
    "a byte of data": (Mode.STRUCTURED, [ask(READ, 1, 0, 1)], [chunk(1, 1, data_of(1))], [Moved(READ, 0, 1)]),
    "data in parts": (
        Mode.STRUCTURED,
        [ask(READ, 1)],
        [chunk(1, 1, data_of(256), False), chunk(2, 1, bytes(12), False), chunk(0, 1)],
        [Moved(READ, 0, 512)],
    ),
    "write": (Mode.STRUCTURED, [ask(WRITE, 1, 512)], [simple(1)], [Moved(WRITE, 512, 512)]),
    "write, in a chunk": (Mode.STRUCTURED, [ask(WRITE, 1)], [chunk(0, 1)], [Moved(WRITE, 0, 512)]),
    "out of order": (
        Mode.STRUCTURED,
        [ask(READ, 1), ask(ZERO, 2, 1024)],
        [simple(2), chunk(1, 1, data_of(512))],
        [Moved(ZERO, 1024, 512), Moved(READ, 0, 512)],
    ),
    "error": (Mode.STRUCTURED, [ask(READ, 1)], [chunk(0x8001, 1, b"\0\0\0\5\0\2no")], []),
    "error in the middle": (
        Mode.STRUCTURED,
        [ask(READ, 1)],
        [chunk(1, 1, data_of(256), False), chunk(0x8002, 1, bytes(14))],
        [],
    ),
    "simple error": (Mode.STRUCTURED, [ask(WRITE, 1)], [simple(1, 28)], []),
    "status": (Mode.STRUCTURED, [ask(STATUS, 1)], [chunk(5, 1, bytes(12))], [Moved(STATUS, 0, 512)]),
    "simple data": (Mode.SIMPLE, [ask(READ, 1)], [simple(1, 0, bytes(512))], [Moved(READ, 0, 512)]),
    "simple data that cannot be read": (Mode.SIMPLE, [ask(READ, 1)], [simple(1, 5)], []),
    "extended data": (
        Mode.EXTENDED,
        [ask(READ, 1, mode=Mode.EXTENDED), ask(WRITE, 2, mode=Mode.EXTENDED)],
        [chunk(1, 1, data_of(512), mode=Mode.EXTENDED), chunk(0, 2, mode=Mode.EXTENDED)],
        [Moved(READ, 0, 512), Moved(WRITE, 0, 512)],
    ),
}


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("step", [1, 3, 4, 16, 17, 20, 33, 10000])
def test_replies(name, step):
    mode, asked, answers, moved = REPLIES[name]
    book = open_ledger(mode)
    for message in asked:
        assert pass_requests(book, message) == (message, [])
    data = b"".join(answers)
    ends = [sum(map(len, answers[: count + 1])) for count in range(len(answers))]
    found = []
    for position in range(0, len(data), step):
        end = book.take_replies(memoryview(data[position : position + step]))
        if end != -1:
            found.append(position + end)
        assert book.is_between_replies == (min(position + step, len(data)) in ends)
    assert found and set(found) <= set(ends) and found[-1] == len(data)
    assert book.moved == moved
    assert len(book) == 0


@pytest.mark.parametrize(
    "mode,kind,size", [(Mode.STRUCTURED, 5, 4 + 8 * 128 * 1024), (Mode.EXTENDED, 6, 8 + 16 * 128 * 1024)]
)
def test_the_longest_list_of_extents_that_qemu_sends(mode, kind, size):
    book = open_ledger(mode)
    pass_requests(book, ask(STATUS, 1, mode=mode))
    answer = chunk(kind, 1, bytes(size), mode=mode)
    assert book.take_replies(memoryview(answer)) == len(answer)
    assert book.moved == [Moved(STATUS, 0, 512)]


def test_longest_answers():
    assert ledger.MAX_PENDING == 1024
    longest = 16 * 1024**2
    for kind, length in ((0x8001, 4096 + 16), (5, longest), (99, longest)):
        for more in (0, 1):
            book = open_ledger()
            pass_requests(book, ask(STATUS, 1))
            head = chunk(kind, 1, bytes(length + more))[:20]
            if more:
                with pytest.raises(ProtocolError):
                    book.take_replies(memoryview(head))
            else:
                book.take_replies(memoryview(head + bytes(40)))


FORGED = {
    "not asked for": (Mode.STRUCTURED, [], chunk(0, 9)),
    "answered twice": (Mode.STRUCTURED, [ask(WRITE, 1)], simple(1) + simple(1)),
    "another protocol": (Mode.STRUCTURED, [ask(READ, 1)], b"HTTP/1.1 200 OK\r\n\r\nxxxxxxxxxxxxxxxxx"),
    "more data than asked for": (Mode.STRUCTURED, [ask(READ, 1)], chunk(1, 1, data_of(513))),
    "more data in parts": (Mode.STRUCTURED, [ask(READ, 1)], chunk(1, 1, data_of(512), False) + chunk(1, 1, data_of(1))),
    "data for a write": (Mode.STRUCTURED, [ask(WRITE, 1)], chunk(1, 1, data_of(1))),
    "no data": (Mode.STRUCTURED, [ask(READ, 1)], chunk(1, 1, data_of(0))),
    "simple reply to a read": (Mode.STRUCTURED, [ask(READ, 1)], simple(1)),
    "endless error": (Mode.STRUCTURED, [ask(READ, 1)], chunk(0x8001, 1, bytes(5000))),
    "endless status": (Mode.STRUCTURED, [ask(STATUS, 1)], chunk(5, 1, bytes(16 * 1024**2 + 1))),
    "simple, where chunks were agreed": (Mode.EXTENDED, [ask(WRITE, 1, mode=Mode.EXTENDED)], simple(1) + bytes(16)),
    "chunks, where simple was agreed": (Mode.SIMPLE, [ask(WRITE, 1)], chunk(0, 1)),
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("step", [1, 10000])
def test_forged_replies(name, step):
    mode, asked, answer = FORGED[name]
    book = open_ledger(mode)
    for message in asked:
        pass_requests(book, message)
    with pytest.raises(ProtocolError):
        for position in range(0, len(answer), step):
            book.take_replies(memoryview(answer[position : position + step]))


BASE, DEPTH, BITMAP = "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:"

RENUMBERED = {
    "nothing": ({}, {}, {}),
    "the same": ({0: BASE, 1: DEPTH}, {0: BASE, 1: DEPTH}, {0: 0, 1: 1}),
    "other numbers": ({1: BASE, 0: DEPTH}, {0: BASE, 255: DEPTH}, {1: 0, 0: 255}),
    "another bitmap": ({0: BASE, 2: BITMAP + "a"}, {0: BASE, 1: BITMAP + "b"}, {0: 0, 2: 1}),
    "large, but the same": ({2**32 - 1: BASE}, {2**32 - 1: BASE}, {2**32 - 1: 2**32 - 1}),
    "too large": ({256: BASE}, {0: BASE}, None),
    "one is missing": ({0: BASE}, {0: BASE, 1: DEPTH}, None),
    "one too many": ({0: BASE, 1: DEPTH}, {0: BASE}, None),
    "two bitmaps": ({0: BITMAP + "a", 1: BITMAP + "b"}, {0: BITMAP + "a"}, None),
    "another one": ({0: "x:y"}, {0: BASE}, None),
    "another one besides": ({0: BASE, 1: "x:y"}, {0: BASE, 1: DEPTH}, None),
}


@pytest.mark.parametrize("name", RENUMBERED)
def test_renumber(name):
    theirs, agreed, expected = RENUMBERED[name]
    assert ledger.renumber(theirs, agreed) == expected


@pytest.mark.parametrize("step", [1, 3, 5, 21, 24, 10000])
@pytest.mark.parametrize("mode,kind,header", [(Mode.STRUCTURED, 5, 20), (Mode.EXTENDED, 6, 32)])
def test_contexts_have_the_numbers_that_the_client_knows(mode, kind, header, step):
    """Wherever replies are cut; and nothing else changes."""
    numbers = {0: 7, 3: 0}
    book = Ledger(Rules(Offer(SIZE, FLAGS), Agreement(mode, CONTEXTS)), mode, numbers)
    pass_requests(book, ask(STATUS, 1, mode=mode) + ask(READ, 2, mode=mode))
    body = b"\0\0\0\3" * 5
    data = bytearray()
    data += chunk(kind, 1, b"\0\0\0\0" + body, False, mode)
    data += chunk(1, 2, data_of(8, 3), False, mode)
    second = len(data) + header
    data += chunk(kind, 1, b"\0\0\0\3" + body, True, mode)
    expected = bytearray(data)
    expected[header + 3] = 7
    expected[second + 3] = 0
    for position in range(0, len(data), step):
        book.take_replies(memoryview(data)[position : position + step])
    assert data == expected
    assert book.moved == [Moved(STATUS, 0, 512)]


def test_a_context_without_extents():
    book = Ledger(Rules(Offer(SIZE, FLAGS), Agreement(Mode.STRUCTURED, CONTEXTS)), Mode.STRUCTURED, {0: 7})
    pass_requests(book, ask(STATUS, 1))
    data = bytearray(chunk(5, 1, b"\0\0\0\0"))
    book.take_replies(memoryview(data))
    assert data[-4:] == b"\0\0\0\7"


def test_a_context_that_was_not_agreed_on():
    book = Ledger(Rules(Offer(SIZE, FLAGS), Agreement(Mode.STRUCTURED, CONTEXTS)), Mode.STRUCTURED, {1: 0})
    pass_requests(book, ask(STATUS, 1))
    with pytest.raises(ProtocolError, match="not agreed on"):
        book.take_replies(memoryview(bytearray(chunk(5, 1, bytes(12)))))


COMMANDS = st.tuples(st.sampled_from([READ, WRITE, FLUSH, ZERO, 99]), st.integers(0, SIZE), st.integers(0, 2000))


@given(st.lists(COMMANDS, max_size=8), st.lists(st.integers(1, 700), min_size=1), st.sampled_from([*Mode]))
def test_any_requests_in_any_pieces(commands, steps, mode):
    """What passes and what is refused does not depend on the pieces; what passes is a part of what was sent."""
    messages = [ask(command, cookie, *rest, mode=mode) for cookie, (command, *rest) in enumerate(commands)]
    whole = open_ledger(mode)
    expected = pass_requests(whole, b"".join(messages))
    book = open_ledger(mode)
    data = b"".join(messages)
    buffer, passed, refused = b"", b"", []
    position = 0
    while position < len(data):
        step = steps[position % len(steps)]
        buffer += data[position : position + step]
        position += step
        taken = 0
        for part in book.take_requests(memoryview(buffer)):
            passed += buffer[part.start : part.end]
            if part.refused is not None:
                refused.append((part.refused.cookie, part.code))
        taken = book.taken
        buffer = buffer[taken:]
    assert (passed, refused) == expected
    assert len(book) == len(whole)


def test_refusal():
    request = Request(0, WRITE, 7, 0, 512, 512)
    assert ledger.refusal(request, 28, Mode.SIMPLE) == simple(7, 28)
    assert ledger.refusal(request, 28, Mode.STRUCTURED) == chunk(0x8001, 7, b"\0\0\0\x1c\0\0")
    assert ledger.refusal(request, 28, Mode.EXTENDED) == chunk(0x8001, 7, b"\0\0\0\x1c\0\0", mode=Mode.EXTENDED)


def test_a_client_whose_refused_requests_are_not_answered_is_full():
    book = open_ledger()
    data = b"".join(ask(READ, cookie, SIZE) for cookie in range(2 * ledger.MAX_PENDING + 1))
    for _ in range(2):
        _, refused = pass_requests(book, data)
        assert len(refused) == ledger.MAX_PENDING
        assert book.is_full and book.taken == 28 * ledger.MAX_PENDING
        book.note_answered()
        data = data[book.taken :]
    assert len(pass_requests(book, data)[1]) == 1


def test_a_payload_that_is_refused_is_dropped_to_its_end():
    book = open_ledger()
    data = ask(WRITE, 1, SIZE)
    for position in range(28, len(data)):
        pass_requests(book, data[:28] if position == 28 else data[position - 1 : position])
        assert book.is_dropping
    pass_requests(book, data[-1:])
    assert not book.is_dropping
    # To the last byte of the next one, too.
    pass_requests(book, ask(WRITE, 2)[:-1])
    assert book.is_amid_request and not book.is_dropping


def test_payloads_do_not_let_more_requests_in():
    """A full client may end the payload that it has begun, and no more than that."""
    book = open_ledger()
    pass_requests(book, b"".join(ask(READ, cookie) for cookie in range(ledger.MAX_PENDING - 1)))
    data = b"".join(ask(WRITE, cookie) for cookie in range(5000, 5010))
    pass_requests(book, data[:100])
    assert book.is_full and book.is_amid_request
    pass_requests(book, data[100:])
    assert len(book) == ledger.MAX_PENDING
    assert not book.is_amid_request and book.taken == 28 + 512 - 100
