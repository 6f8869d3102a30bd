"""The negotiation of a server, driven by literal bytes, by our own client, and by anything."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.nbd import handshake, offer, wire
from ovirt_imageio.nbd.errors import ClientFault, Refused
from ovirt_imageio.nbd.handshake import Agreement, Receive, Send
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.wire import ExportFlag, Info, Mode, Option, Reply

FLAGS = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_WRITE_ZEROES
CONTEXTS = ("base:allocation", "qemu:dirty-bitmap:one", "qemu:dirty-bitmap:two")
OFFER = Offer(size=2**40, flags=FLAGS, names=frozenset({"", "disk"}), contexts=dict(enumerate(CONTEXTS)))

GREETING = b"NBDMAGICIHAVEOPT\x00\x03"
# Fixed new style, no zeroes.
HELLO = b"\x00\x00\x00\x03"


def talk(data: bytes, what: Offer = OFFER) -> tuple[bytes, object]:
    """Let a client send this; return what the server sent, and what it agreed to, "more" if it wants more."""
    steps = offer.welcome(what)
    sent = b""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Send):
                sent += step.data
                step = steps.send(b"")
            else:
                assert isinstance(step, Receive)
                if step.size > len(data):
                    return sent, "more"
                part, data = data[: step.size], data[step.size :]
                step = steps.send(part)
    except StopIteration as end:
        return sent, end.value


def option(number: int, payload: bytes = b"") -> bytes:
    """Return an option as the protocol document draws it."""
    return b"IHAVEOPT" + struct.pack(">II", number, len(payload)) + payload


def text(value: str) -> bytes:
    """Return a string with its length."""
    return struct.pack(">I", len(value)) + value.encode()


def go(name: str = "", *infos: int) -> bytes:
    """Return the payload of GO and INFO."""
    return text(name) + struct.pack(f">{1 + len(infos)}H", len(infos), *infos)


def query(name: str, *queries: str) -> bytes:
    """Return the payload of the options about meta contexts."""
    return text(name) + struct.pack(">I", len(queries)) + b"".join(map(text, queries))


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return the answers that the server sent after its greeting: option, type and payload."""
    assert data[:18] == GREETING
    data = data[18:]
    found = []
    while data:
        magic, number, kind, length = struct.unpack_from(">QIII", data)
        assert magic == 0x3E889045565A9
        found.append((number, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


def test_df_needs_structured_replies():
    """NBD_FLAG_SEND_DF, bit 7, is left clear where structured replies were not negotiated."""
    offer = Offer(4096, FLAGS | ExportFlag.SEND_DF)
    exports = {}
    for name, hello in {"simple": HELLO, "structured": HELLO + option(8)}.items():
        sent, _ = talk(hello + option(7, go()), offer)
        exports[name] = next(payload for number, kind, payload in replies(sent) if (number, kind) == (7, 3))
    assert exports["simple"] == bytes.fromhex("0000 0000000000001000 0045")
    assert exports["structured"] == bytes.fromhex("0000 0000000000001000 00c5")
    sent, _ = talk(HELLO + option(1), offer)
    assert sent[18:] == bytes.fromhex("0000000000001000 0045")


def test_go():
    sent, agreed = talk(HELLO + option(7, go("disk", 3, 1)))
    size = bytes.fromhex("0000 0000010000000000 0045")
    assert replies(sent) == [
        (7, 3, size),
        (7, 3, b"\x00\x01disk"),
        (7, 3, bytes.fromhex("0003 00000001 00001000 02000000")),
        (7, 1, b""),
    ]
    assert agreed == Agreement(Mode.SIMPLE, {})


def test_info_goes_on():
    sent, agreed = talk(HELLO + option(6, go()))
    assert [kind for _, kind, _ in replies(sent)] == [3, 3, 1]
    assert agreed == "more"


def test_export_name():
    assert talk(HELLO + option(1, b"disk")) == (GREETING + bytes.fromhex("0000010000000000 0045"), Agreement())
    sent, agreed = talk(b"\x00\x00\x00\x01" + option(1))
    assert sent == GREETING + bytes.fromhex("0000010000000000 0045") + bytes(124)
    assert agreed == Agreement()


def test_list_tells_no_name():
    sent, _ = talk(HELLO + option(3))
    assert replies(sent) == [(3, 2, bytes(4)), (3, 1, b"")]


def test_abort():
    sent, agreed = talk(HELLO + option(2) + option(7, go()))
    assert replies(sent) == [(2, 1, b"")]
    assert agreed is None


def test_modes():
    assert talk(HELLO + option(8) + option(7, go()))[1] == Agreement(Mode.STRUCTURED)
    assert talk(HELLO + option(8) + option(11) + option(7, go()))[1] == Agreement(Mode.EXTENDED)
    sent, agreed = talk(HELLO + option(11) + option(8) + option(7, go()))
    assert replies(sent)[1] == (8, Reply.ERR_EXT_HEADER_REQD, b"")
    assert agreed == Agreement(Mode.EXTENDED)


def test_extended_headers_are_not_always_offered():
    sent, _ = talk(HELLO + option(11), Offer(1024, FLAGS, can_extend=False))
    assert replies(sent) == [(11, Reply.ERR_UNSUP, b"")]


def test_tls_is_refused():
    sent, _ = talk(HELLO + option(5))
    assert [(number, kind) for number, kind, _ in replies(sent)] == [(5, Reply.ERR_POLICY)]


def test_contexts_are_listed():
    def listed(*queries):
        sent, _ = talk(HELLO + option(8) + option(9, query("", *queries)))
        *found, last = replies(sent)[1:]
        assert last == (9, 1, b"")
        return [(int.from_bytes(payload[:4], "big"), payload[4:].decode()) for _, kind, payload in found]

    everything = list(enumerate(CONTEXTS))
    assert listed() == everything
    assert listed("base:") == everything[:1]
    assert listed("qemu:dirty-bitmap:") == everything[1:]
    assert listed("qemu:dirty-bitmap:two", "unknown:") == everything[2:]


def test_contexts_are_selected():
    def selected(*queries):
        agreed = talk(HELLO + option(8) + option(10, query("disk", *queries)) + option(7, go("disk")))[1]
        assert isinstance(agreed, Agreement)
        return agreed.contexts

    assert selected("base:allocation", "unknown:x") == {0: "base:allocation"}
    assert selected("qemu:dirty-bitmap:two") == {2: "qemu:dirty-bitmap:two"}
    assert selected("qemu:") == selected() == {}


def test_a_second_selection_replaces_the_first_one():
    data = HELLO + option(8) + option(10, query("", CONTEXTS[0])) + option(10, query("", CONTEXTS[1]))
    assert talk(data + option(7, go()))[1] == Agreement(Mode.STRUCTURED, {1: CONTEXTS[1]})
    assert talk(data + option(10, query("gone")) + option(7, go()))[1] == Agreement(Mode.STRUCTURED)


def test_contexts_go_with_the_headers_with_which_they_were_selected():
    data = HELLO + option(8) + option(10, query("", CONTEXTS[0])) + option(11)
    assert talk(data + option(7, go()))[1] == Agreement(Mode.EXTENDED, {})


@pytest.mark.parametrize("rest", [b"\0", text("more")])
def test_query_that_is_longer_than_it_says(rest):
    sent, agreed = talk(HELLO + option(8) + option(10, query("", CONTEXTS[0]) + rest))
    assert replies(sent)[1][:2] == (10, 0x80000003)
    assert agreed == "more"


def test_refusals_tell_people_why():
    for data, words in [
        (option(5), b"the connection decided about TLS already"),
        (option(7, go("other")), b"there is no such export"),
        (option(8) + option(10, query("other")), b"there is no such export"),
        (option(99, bytes(16385)), b"the option is too long"),
        (option(8, b"x"), b"the payload is longer than what it says"),
        (option(7, b"\0"), b"the payload is shorter than what it says"),
    ]:
        assert replies(talk(HELLO + data)[0])[-1][2] == words


REFUSED = {
    "unknown option": (option(77), Reply.ERR_UNSUP),
    "another export": (option(7, go("other")), Reply.ERR_UNKNOWN),
    "info of another export": (option(6, go("other")), Reply.ERR_UNKNOWN),
    "go that is too short": (option(7, b"\0\0"), Reply.ERR_INVALID),
    "go that is too long": (option(7, go() + b"x"), Reply.ERR_INVALID),
    "go that lies about its name": (option(7, struct.pack(">IH", 10, 0)), Reply.ERR_INVALID),
    "go that lies about its infos": (option(7, struct.pack(">IH", 0, 10)), Reply.ERR_INVALID),
    "name that is not UTF-8": (option(7, struct.pack(">I", 1) + b"\xff\0\0"), Reply.ERR_INVALID),
    "name that is too long": (option(7, go("x" * 4097)), Reply.ERR_INVALID),
    "option that is too long": (option(7, bytes(16 * 1024 + 1)), Reply.ERR_TOO_BIG),
    "contexts without structured replies": (option(10, query("")), Reply.ERR_INVALID),
    "info with a name longer than the payload": (option(6, struct.pack(">I", 2) + b"x"), Reply.ERR_INVALID),
    "structured replies with a payload": (option(8, b"x"), Reply.ERR_INVALID),
    "list with a payload": (option(3, b"x"), Reply.ERR_INVALID),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    data, kind = REFUSED[name]
    sent, agreed = talk(HELLO + data)
    assert [found for _, found, _ in replies(sent)] == [kind]
    # The conversation goes on.
    assert agreed == "more"
    assert talk(HELLO + data + option(7, go()))[1] == Agreement()


DEADLY = {
    "unknown flags": b"\x00\x00\x00\x07",
    "wrong magic": HELLO + b"IHAVENOT" + bytes(8),
    "huge option": HELLO + b"IHAVEOPT" + struct.pack(">II", 7, 64 * 1024 + 1),
    "another export, in the old way": HELLO + option(1, b"other"),
    "name that is not UTF-8, in the old way": HELLO + option(1, b"\xff"),
    "name that is too long, in the old way": HELLO + option(1, bytes(20000)),
    "options without end": HELLO + option(3) * 65,
}


@pytest.mark.parametrize("name", DEADLY)
def test_deadly(name):
    with pytest.raises(ClientFault):
        talk(DEADLY[name])


def test_what_is_offered_unless_told_otherwise():
    what = Offer(4096, FLAGS)
    assert (what.minimum_block, what.preferred_block, what.maximum_block) == (1, 4096, 33554432)
    assert what.names == {""}
    assert what.can_extend and what.can_punch


def test_names_are_not_shown():
    """They may hold the id of a ticket."""
    assert "secret" not in repr(Offer(4096, FLAGS, names=frozenset({"secret"})))


def test_longest_option():
    def kind(length: int) -> int:
        return replies(talk(HELLO + option(99, bytes(length)))[0])[0][1]

    assert kind(16384) == 0x80000001
    assert kind(16385) == kind(65536) == 0x80000009
    with pytest.raises(ClientFault):
        kind(65537)


def test_longest_name():
    what = Offer(4096, FLAGS, names=frozenset({"x" * 4096}))
    assert isinstance(talk(HELLO + option(7, go("x" * 4096)), what)[1], Agreement)


def test_longest_negotiation():
    assert talk(HELLO + option(3) * 63)[1] == "more"
    with pytest.raises(ClientFault):
        talk(HELLO + option(3) * 64)


@given(
    st.lists(st.tuples(st.sampled_from([*Option, 4, 99]), st.binary(max_size=40)), max_size=10), st.binary(max_size=9)
)
def test_any_options(options, rest):
    """Whatever a client sends is answered, or ends the conversation with our error."""
    data = HELLO + b"".join(option(*each) for each in options) + rest
    try:
        sent, agreed = talk(data)
    except ClientFault:
        return
    assert sent.startswith(GREETING)
    assert agreed in ("more", None) or isinstance(agreed, Agreement)


def converse(what: Offer, name: str, dirty: bool = False) -> tuple[handshake.Export, object]:
    """Let our client talk to our server; return what each of them believes."""
    client, server = handshake.negotiate(name, dirty=dirty), offer.welcome(what)
    to_client, to_server = bytearray(), bytearray()
    results: dict[str, object] = {}
    turns = {
        "client": (client, next(client), to_client, to_server),
        "server": (server, next(server), to_server, to_client),
    }
    while len(results) < 2:
        before = dict(turns)
        for side, (steps, step, inbox, outbox) in before.items():
            if side in results:
                continue
            if isinstance(step, Send):
                outbox += step.data
                data = b""
            else:
                assert isinstance(step, Receive)
                if len(inbox) < step.size:
                    continue
                data = bytes(inbox[: step.size])
                del inbox[: step.size]
            try:
                turns[side] = (steps, steps.send(data), inbox, outbox)
            except StopIteration as end:
                results[side] = end.value
    export = results["client"]
    assert isinstance(export, handshake.Export)
    return export, results["server"]


@pytest.mark.parametrize("can_extend", [True, False])
def test_our_client_agrees(can_extend):
    what = Offer(4096, FLAGS, contexts=dict(enumerate(CONTEXTS)), can_extend=can_extend)
    export, agreed = converse(what, "", dirty=True)
    assert isinstance(agreed, Agreement)
    assert (export.size, export.flags, export.mode) == (4096, FLAGS, agreed.mode)
    assert export.mode is (Mode.EXTENDED if can_extend else Mode.STRUCTURED)
    assert export.contexts == agreed.contexts == dict(enumerate(CONTEXTS))
    assert (export.minimum_block, export.maximum_block) == (1, 32 * 1024**2)


def test_our_client_is_refused():
    with pytest.raises(Refused):
        converse(OFFER, "other")


def test_numbers_are_those_of_the_protocol():
    assert (Option.LIST, Option.INFO, Option.GO) == (3, 6, 7)
    assert (Info.EXPORT, Info.NAME, Info.BLOCK_SIZE) == (0, 1, 3)
    assert Reply.SERVER == 2
    assert wire.ExportFlag.SEND_DF == 128
