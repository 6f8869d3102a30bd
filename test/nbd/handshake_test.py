"""The negotiation, as transcripts: what we send, and what the server answers."""

from __future__ import annotations

import struct

import pytest

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.errors import ProtocolError, Refused
from ovirt_imageio.nbd.handshake import Agreement, Export, Receive, Send, StartTLS, negotiate
from ovirt_imageio.nbd.wire import ExportFlag, HandshakeFlag, Info, Mode, Option, Reply

BOTH = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
FLAGS = ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH
SIZE = 1024**3
BITMAP = "qemu:dirty-bitmap:backup"


def greeting(flags=BOTH):
    return wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, flags)


def reply(option, kind=Reply.ACK, payload=b""):
    return wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, kind, len(payload)) + payload


def context(option, number, name):
    return reply(option, Reply.META_CONTEXT, struct.pack(">I", number) + name.encode())


def info(kind, payload, option=Option.GO):
    return reply(option, Reply.INFO, struct.pack(">H", kind) + payload)


EXPORT = info(Info.EXPORT, wire.EXPORT.pack(SIZE, FLAGS))
GO = EXPORT + reply(Option.GO)
NOT_EXTENDED = reply(Option.EXTENDED_HEADERS, Reply.ERR_UNSUP)
STRUCTURED = NOT_EXTENDED + reply(Option.STRUCTURED_REPLY)
NO_SIZES = reply(Option.INFO, Reply.ERR_UNSUP)
# The last context, and no block sizes.
NO_CONTEXTS = reply(Option.SET_META_CONTEXT) + NO_SIZES


class Transcript:
    """Drive a negotiation with the bytes of a server."""

    def __init__(self, data, name="disk", **options):
        self.left = data
        self.sent = []
        self.export = None
        steps = negotiate(name, **options)
        answer = None
        try:
            while True:
                answer = self.perform(steps.send(answer))
        except StopIteration as end:
            self.export = end.value

    def perform(self, step):
        if isinstance(step, Receive):
            assert 0 < step.size <= wire.MAX_OPTION_REPLY
            if len(self.left) < step.size:
                raise EOFError
            data, self.left = self.left[: step.size], self.left[step.size :]
            return data
        self.sent.append(step.data if isinstance(step, Send) else step)
        return b""

    @property
    def options(self):
        """What was asked for, with payloads."""
        messages = [data for data in self.sent if isinstance(data, bytes) and data.startswith(wire.OPTION_MAGIC)]
        return [(struct.unpack(">I", data[8:12])[0], data[16:]) for data in messages]


# Good servers


def test_structured():
    contexts = context(Option.SET_META_CONTEXT, 5, "base:allocation") + NO_CONTEXTS
    transcript = Transcript(greeting() + STRUCTURED + contexts + GO)
    assert transcript.left == b""
    assert transcript.export == Export("disk", SIZE, FLAGS, Mode.STRUCTURED, {5: "base:allocation"})
    assert transcript.sent[0] == wire.CLIENT_FLAGS.pack(BOTH)
    assert transcript.options == [
        (Option.EXTENDED_HEADERS, b""),
        (Option.STRUCTURED_REPLY, b""),
        (Option.SET_META_CONTEXT, wire.encode_meta_query("disk", ("base:allocation", "qemu:allocation-depth"))),
        (Option.INFO, wire.encode_go("disk", (Info.BLOCK_SIZE,))),
        (Option.GO, wire.encode_go("disk")),
    ]


def test_extended():
    transcript = Transcript(greeting() + reply(Option.EXTENDED_HEADERS) + NO_CONTEXTS + GO)
    assert transcript.export.mode is Mode.EXTENDED
    assert Option.STRUCTURED_REPLY not in dict(transcript.options)


@pytest.mark.parametrize("error", [Reply.ERR_UNSUP, Reply.ERR_POLICY])
def test_simple(error):
    """Without structured replies there is no block status."""
    data = greeting() + reply(Option.EXTENDED_HEADERS, error) + reply(Option.STRUCTURED_REPLY, error) + NO_SIZES + GO
    transcript = Transcript(data)
    assert transcript.export.mode is Mode.SIMPLE
    assert transcript.export.contexts == {}


def test_no_contexts():
    data = greeting() + STRUCTURED + reply(Option.SET_META_CONTEXT, Reply.ERR_UNSUP) + NO_SIZES + GO
    assert Transcript(data).export.contexts == {}


@pytest.mark.parametrize("names", [[], [BITMAP], [BITMAP, "qemu:dirty-bitmap:other"]])
def test_dirty(names):
    listed = b"".join(context(Option.LIST_META_CONTEXT, 0, name) for name in names) + reply(Option.LIST_META_CONTEXT)
    selected = b"".join(context(Option.SET_META_CONTEXT, i, name) for i, name in enumerate(names)) + NO_CONTEXTS
    transcript = Transcript(greeting() + STRUCTURED + listed + selected + GO, dirty=True)
    assert transcript.export.bitmaps == sorted(names)
    options = dict(transcript.options)
    assert options[Option.LIST_META_CONTEXT] == wire.encode_meta_query("disk", ("qemu:dirty-bitmap:",))
    wanted = ("base:allocation", "qemu:allocation-depth", *names)
    assert options[Option.SET_META_CONTEXT] == wire.encode_meta_query("disk", wanted)


@pytest.mark.parametrize("names", [[], ["qemu:dirty-bitmap:other"], [BITMAP, "qemu:dirty-bitmap:other"]])
def test_like_a_client_with_another_bitmap(names):
    """A proxy does not know its name; the only one is meant."""
    agreement = Agreement(Mode.STRUCTURED, {0: "base:allocation", 1: BITMAP})
    listed = b"".join(context(Option.LIST_META_CONTEXT, 0, name) for name in names) + reply(Option.LIST_META_CONTEXT)
    structured = reply(Option.STRUCTURED_REPLY)
    transcript = Transcript(greeting() + structured + listed + NO_CONTEXTS + GO, like=agreement)
    wanted = ("base:allocation", names[0] if len(names) == 1 else BITMAP)
    assert dict(transcript.options)[Option.SET_META_CONTEXT] == wire.encode_meta_query("disk", wanted)


def test_listed_contexts_that_are_no_bitmaps_are_ignored():
    listed = context(Option.LIST_META_CONTEXT, 0, "other:thing") + reply(Option.LIST_META_CONTEXT)
    transcript = Transcript(greeting() + STRUCTURED + listed + NO_CONTEXTS + GO, dirty=True)
    assert transcript.export.bitmaps == []


def test_export_name():
    """Servers without GO know an older way."""
    tail = reply(Option.GO, Reply.ERR_UNSUP) + wire.EXPORT.pack(SIZE, FLAGS)
    transcript = Transcript(greeting() + STRUCTURED + NO_CONTEXTS + tail)
    assert transcript.export.size == SIZE
    assert transcript.options[-1] == (Option.EXPORT_NAME, b"disk")


def test_export_name_with_padding():
    tail = reply(Option.GO, Reply.ERR_UNSUP) + wire.EXPORT.pack(SIZE, FLAGS) + bytes(124)
    transcript = Transcript(greeting(HandshakeFlag.FIXED_NEWSTYLE) + STRUCTURED + NO_CONTEXTS + tail)
    assert transcript.export.size == SIZE
    assert transcript.left == b""
    assert transcript.sent[0] == wire.CLIENT_FLAGS.pack(HandshakeFlag.FIXED_NEWSTYLE)


def test_tls():
    data = greeting() + reply(Option.STARTTLS) + STRUCTURED + NO_CONTEXTS + GO
    transcript = Transcript(data, secure=True)
    assert transcript.options[0] == (Option.STARTTLS, b"")
    assert transcript.sent[2] == StartTLS()
    assert transcript.export.size == SIZE


def test_block_sizes():
    told = info(Info.BLOCK_SIZE, wire.BLOCK_SIZES.pack(512, 4096, 1024**2 + 100))
    export = Transcript(greeting() + STRUCTURED + NO_CONTEXTS + told + GO).export
    assert (export.minimum_block, export.preferred_block, export.maximum_block) == (512, 4096, 1024**2)


@pytest.mark.parametrize(("told", "maximum"), [(1024**2, 1024**2), (2**32 - 1, 32 * 1024**2), (32768, 32768)])
def test_maximum(told, maximum):
    """The server tells it before, so that it need not be asked for sizes that we would have to keep to."""
    sizes = info(Info.BLOCK_SIZE, wire.BLOCK_SIZES.pack(512, 4096, told), Option.INFO) + reply(Option.INFO)
    data = greeting() + STRUCTURED + reply(Option.SET_META_CONTEXT) + sizes + GO
    export = Transcript(data).export
    assert (export.minimum_block, export.preferred_block, export.maximum_block) == (1, 4096, maximum)


def test_maximum_that_only_a_part_of_the_servers_tells():
    """What is wrong with the export is said by GO."""
    for error in (Reply.ERR_UNSUP, Reply.ERR_POLICY, Reply.ERR_UNKNOWN, Reply.ERR_SHUTDOWN):
        data = greeting() + STRUCTURED + reply(Option.SET_META_CONTEXT) + reply(Option.INFO, error) + GO
        assert Transcript(data).export.maximum_block == 32 * 1024**2


def test_default_block_sizes():
    export = Transcript(greeting() + STRUCTURED + NO_CONTEXTS + GO).export
    assert (export.minimum_block, export.preferred_block, export.maximum_block) == (1, 4096, 32 * 1024**2)


def test_block_sizes_are_asked_for_only_if_the_server_insists():
    data = greeting() + STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.ERR_BLOCK_SIZE_REQD) + GO
    asked = [payload for option, payload in Transcript(data).options if option == Option.GO]
    assert asked == [wire.encode_go("disk"), wire.encode_go("disk", (Info.BLOCK_SIZE,))]


def test_other_information_is_ignored():
    told = info(1, b"name") + info(2, b"description") + info(4711, b"")
    assert Transcript(greeting() + STRUCTURED + NO_CONTEXTS + told + GO).export.size == SIZE


def test_unknown_flags_are_ignored():
    data = greeting() + STRUCTURED + NO_CONTEXTS + info(Info.EXPORT, wire.EXPORT.pack(0, 0xFFFF)) + reply(Option.GO)
    export = Transcript(data).export
    assert export.size == 0
    assert export.is_read_only and export.can_flush and export.can_fua and export.can_zero and export.can_multi_conn


def test_nothing_is_offered():
    data = greeting() + STRUCTURED + NO_CONTEXTS + info(Info.EXPORT, wire.EXPORT.pack(0, 1)) + reply(Option.GO)
    export = Transcript(data).export
    assert not (export.is_read_only or export.can_flush or export.can_fua or export.can_zero or export.can_multi_conn)


# Servers that say no

REFUSALS = {
    "no such export": (STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.ERR_UNKNOWN), "there is no such export"),
    "in its own words": (STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.ERR_UNKNOWN, b"go\naway"), "(go away)"),
    "an error of its own": (STRUCTURED + NO_CONTEXTS + reply(Option.GO, 0x8000_1234), "error 0x80001234"),
    "shutting down": (NOT_EXTENDED + reply(Option.STRUCTURED_REPLY, Reply.ERR_SHUTDOWN), "it is shutting down"),
    "wants TLS": (reply(Option.EXTENDED_HEADERS, Reply.ERR_TLS_REQD), "nbds://"),
    "wants TLS later": (STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.ERR_TLS_REQD), "nbds://"),
    "export of contexts": (STRUCTURED + reply(Option.SET_META_CONTEXT, Reply.ERR_UNKNOWN), "no such export"),
    "blocks twice": (
        STRUCTURED + NO_CONTEXTS + 2 * reply(Option.GO, Reply.ERR_BLOCK_SIZE_REQD),
        "error 0x80000008",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name):
    data, expected = REFUSALS[name]
    with pytest.raises(Refused) as e:
        Transcript(greeting() + data)
    assert expected in str(e.value)


def test_tls_refused():
    with pytest.raises(Refused, match="TLS: it is not allowed"):
        Transcript(greeting() + reply(Option.STARTTLS, Reply.ERR_POLICY), secure=True)


# Servers that break the rules

DIRTY = STRUCTURED + reply(Option.LIST_META_CONTEXT)
FAULTS = {
    "no magic": (b"HTTP/1.1 400 Bad Request\r\n", "not an NBD server: it greets with 'HTTP/1.1'"),
    "oldstyle": (b"NBDMAGIC" + bytes.fromhex("0000420281861253") + bytes(136), "old style"),
    "not fixed": (greeting(0), "fixed new style"),
    "reply magic": (greeting() + b"x" * 20, "begins with"),
    "another option": (greeting() + reply(Option.GO), "answered option 7"),
    "long reply": (greeting() + wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, 11, 1, 2**32 - 1), "4294967295 bytes long"),
    "ack with payload": (greeting() + reply(Option.EXTENDED_HEADERS, Reply.ACK, b"x"), "unexpected answer"),
    "unknown reply": (greeting() + reply(Option.EXTENDED_HEADERS, 99), "unexpected answer"),
    "context too short": (
        greeting() + STRUCTURED + reply(Option.SET_META_CONTEXT, Reply.META_CONTEXT, b"1234"),
        "unexpected answer",
    ),
    "context not asked for": (
        greeting() + STRUCTURED + context(Option.SET_META_CONTEXT, 1, "other:thing") + NO_CONTEXTS,
        "not asked for",
    ),
    "context number twice": (
        greeting()
        + STRUCTURED
        + context(Option.SET_META_CONTEXT, 1, "base:allocation")
        + context(Option.SET_META_CONTEXT, 1, "qemu:allocation-depth")
        + NO_CONTEXTS,
        "twice",
    ),
    "context name twice": (
        greeting()
        + STRUCTURED
        + context(Option.SET_META_CONTEXT, 1, "base:allocation")
        + context(Option.SET_META_CONTEXT, 2, "base:allocation")
        + NO_CONTEXTS,
        "twice",
    ),
    "context not UTF-8": (
        greeting() + STRUCTURED + reply(Option.SET_META_CONTEXT, Reply.META_CONTEXT, b"\0\0\0\1\xff"),
        "not UTF-8",
    ),
    "endless contexts": (
        greeting() + STRUCTURED + context(Option.SET_META_CONTEXT, 1, "base:allocation") * 1000,
        "does not stop",
    ),
    "endless information": (greeting() + STRUCTURED + NO_CONTEXTS + EXPORT * 1000, "does not stop"),
    "information without type": (
        greeting() + STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.INFO, b"x"),
        "without a type",
    ),
    "odd answer to INFO": (
        greeting() + STRUCTURED + reply(Option.SET_META_CONTEXT) + reply(Option.INFO, Reply.META_CONTEXT),
        "unexpected answer",
    ),
    "export of odd size": (greeting() + STRUCTURED + NO_CONTEXTS + info(Info.EXPORT, b"x" * 9), "of 11 bytes"),
    "no export": (greeting() + STRUCTURED + NO_CONTEXTS + reply(Option.GO), "did not tell the size"),
    "go is answered oddly": (
        greeting() + STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.META_CONTEXT),
        "unexpected answer",
    ),
    "negative size": (
        greeting() + STRUCTURED + NO_CONTEXTS + info(Info.EXPORT, wire.EXPORT.pack(2**63, 1)) + reply(Option.GO),
        "impossible size",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name):
    data, expected = FAULTS[name]
    with pytest.raises(ProtocolError, match=expected):
        Transcript(data)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (3, 4, 8), (2**17, 2**17, 2**20), (4096, 4096, 512)])
def test_impossible_block_sizes(sizes):
    told = info(Info.BLOCK_SIZE, wire.BLOCK_SIZES.pack(*sizes))
    with pytest.raises(ProtocolError, match="impossible block sizes"):
        Transcript(greeting() + STRUCTURED + NO_CONTEXTS + told + GO)
    told = info(Info.BLOCK_SIZE, wire.BLOCK_SIZES.pack(*sizes), Option.INFO) + reply(Option.INFO)
    with pytest.raises(ProtocolError, match="impossible block sizes"):
        Transcript(greeting() + STRUCTURED + reply(Option.SET_META_CONTEXT) + told + GO)


def test_truncated_at_each_byte():
    """Whatever is missing, we wait for it, and for no more than was promised."""
    contexts = context(Option.SET_META_CONTEXT, 5, "base:allocation") + NO_CONTEXTS
    data = greeting() + STRUCTURED + contexts + GO
    for size in range(len(data)):
        with pytest.raises(EOFError):
            Transcript(data[:size])
    assert Transcript(data).export is not None


# As was agreed with a client of ours


def test_like_simple():
    transcript = Transcript(greeting() + NO_SIZES + GO, like=Agreement())
    assert transcript.export == Export("disk", SIZE, FLAGS, Mode.SIMPLE)
    assert [option for option, _ in transcript.options] == [Option.INFO, Option.GO]


def test_a_server_that_tells_the_maximum_is_not_asked_for_it():
    told = info(Info.BLOCK_SIZE, wire.BLOCK_SIZES.pack(1, 4096, 1024**2))
    transcript = Transcript(greeting() + told + GO, like=Agreement(), asks_maximum=False)
    assert transcript.export.maximum_block == 1024**2
    assert transcript.options == [(Option.GO, wire.encode_go("disk"))]


@pytest.mark.parametrize("mode", [Mode.STRUCTURED, Mode.EXTENDED])
def test_like_contexts(mode):
    option = Option.EXTENDED_HEADERS if mode is Mode.EXTENDED else Option.STRUCTURED_REPLY
    selected = context(Option.SET_META_CONTEXT, 7, "base:allocation") + NO_CONTEXTS
    transcript = Transcript(greeting() + reply(option) + selected + GO, like=Agreement(mode, {0: "base:allocation"}))
    assert transcript.export == Export("disk", SIZE, FLAGS, mode, {7: "base:allocation"})
    assert transcript.options[:2] == [
        (option, b""),
        (Option.SET_META_CONTEXT, wire.encode_meta_query("disk", ("base:allocation",))),
    ]


def test_like_without_contexts():
    transcript = Transcript(
        greeting() + reply(Option.STRUCTURED_REPLY) + NO_SIZES + GO, like=Agreement(Mode.STRUCTURED)
    )
    assert transcript.export == Export("disk", SIZE, FLAGS, Mode.STRUCTURED)


# Limits


def test_longest_list():
    """So many bitmaps that no server has more; the last answer is ACK."""

    def listed(count):
        names = b"".join(context(Option.LIST_META_CONTEXT, 0, f"{BITMAP}{n}") for n in range(count))
        return greeting() + STRUCTURED + names + reply(Option.LIST_META_CONTEXT)

    data = listed(255) + NO_CONTEXTS + GO
    assert len(dict(Transcript(data, dirty=True).options)[Option.SET_META_CONTEXT]) > 255 * len(BITMAP)
    with pytest.raises(ProtocolError, match="does not stop"):
        Transcript(listed(256), dirty=True)


def test_longest_answer():
    """A string of 4096 bytes, and 64 for what comes before it."""
    with pytest.raises(Refused):
        Transcript(greeting() + STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.ERR_UNKNOWN, b"x" * 4160))
    with pytest.raises(ProtocolError, match="4161 bytes long"):
        Transcript(greeting() + STRUCTURED + NO_CONTEXTS + reply(Option.GO, Reply.ERR_UNKNOWN, b"x" * 4161))


def test_largest_disk():
    size = 2**63 - 1
    data = greeting() + STRUCTURED + NO_CONTEXTS + info(Info.EXPORT, wire.EXPORT.pack(size, 1)) + reply(Option.GO)
    assert Transcript(data).export.size == size


@pytest.mark.parametrize("sizes", [(1, 4096, 2**20), (2, 4096, 2**20), (4096, 4096, 4096), (65536, 65536, 65536)])
def test_possible_block_sizes(sizes):
    told = info(Info.BLOCK_SIZE, wire.BLOCK_SIZES.pack(*sizes))
    export = Transcript(greeting() + STRUCTURED + NO_CONTEXTS + told + GO).export
    assert (export.minimum_block, export.preferred_block, export.maximum_block) == sizes
