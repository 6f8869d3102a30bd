"""Messages are encoded as the protocol document draws them."""

from __future__ import annotations

import pytest

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.wire import Chunk, Command, CommandFlag, ExportFlag, HandshakeFlag, Info, Mode, Option, Reply

# Numbers and bytes stand here as the protocol document has them, doc/proto.md of the NBD project: a test that used the
# constants of the module on both sides would not notice a wrong one.
NUMBERS = {
    HandshakeFlag: {"FIXED_NEWSTYLE": 1, "NO_ZEROES": 2},
    Option: {
        "EXPORT_NAME": 1,
        "ABORT": 2,
        "LIST": 3,
        "STARTTLS": 5,
        "INFO": 6,
        "GO": 7,
        "STRUCTURED_REPLY": 8,
        "LIST_META_CONTEXT": 9,
        "SET_META_CONTEXT": 10,
        "EXTENDED_HEADERS": 11,
    },
    Reply: {
        "ACK": 1,
        "SERVER": 2,
        "INFO": 3,
        "META_CONTEXT": 4,
        "ERR_UNSUP": 2**31 + 1,
        "ERR_POLICY": 2**31 + 2,
        "ERR_INVALID": 2**31 + 3,
        "ERR_PLATFORM": 2**31 + 4,
        "ERR_TLS_REQD": 2**31 + 5,
        "ERR_UNKNOWN": 2**31 + 6,
        "ERR_SHUTDOWN": 2**31 + 7,
        "ERR_BLOCK_SIZE_REQD": 2**31 + 8,
        "ERR_TOO_BIG": 2**31 + 9,
        "ERR_EXT_HEADER_REQD": 2**31 + 10,
    },
    Info: {"EXPORT": 0, "NAME": 1, "BLOCK_SIZE": 3},
    ExportFlag: {
        "HAS_FLAGS": 1,
        "READ_ONLY": 2,
        "SEND_FLUSH": 4,
        "SEND_FUA": 8,
        "SEND_WRITE_ZEROES": 64,
        "SEND_DF": 128,
        "CAN_MULTI_CONN": 256,
    },
    Command: {"READ": 0, "WRITE": 1, "DISCONNECT": 2, "FLUSH": 3, "WRITE_ZEROES": 6, "BLOCK_STATUS": 7},
    CommandFlag: {"NONE": 0, "FUA": 1, "NO_HOLE": 2, "DF": 4, "REQ_ONE": 8, "PAYLOAD_LENGTH": 32},
    Chunk: {
        "NONE": 0,
        "OFFSET_DATA": 1,
        "OFFSET_HOLE": 2,
        "BLOCK_STATUS": 5,
        "BLOCK_STATUS_EXT": 6,
        "ERROR": 2**15 + 1,
        "ERROR_OFFSET": 2**15 + 2,
    },
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers(kind):
    assert {name: int(member) for name, member in kind.__members__.items()} == NUMBERS[kind]


def test_other_numbers():
    assert wire.CHUNK_DONE == 1
    assert (wire.STATE_HOLE, wire.STATE_ZERO) == (1, 2)
    assert wire.STATE_DIRTY == 1
    assert wire.EXPORT_NAME_PADDING == 124
    assert wire.MAX_STRING == 4096
    assert wire.MAX_LENGTH == 2**32 - 1
    assert frozenset(map(int, wire.CHANGES)) == {1, 3, 6}


def test_flags_of_a_request():
    """Behind the magic, in both kinds of headers."""
    for mode in (Mode.SIMPLE, Mode.EXTENDED):
        header = bytearray(wire.encode_request(mode, 0, Command.READ, 0, 0, 0))
        wire.REQUEST_FLAGS.pack_into(header, wire.REQUEST_FLAGS_AT, 0x0102)
        assert bytes(header) == wire.encode_request(mode, 0x0102, Command.READ, 0, 0, 0)


def test_longest_answer_to_an_option_holds_the_longest_string():
    """... and what comes before it, the identifier of a context, or an information type and a length."""
    assert wire.MAX_OPTION_REPLY == 4096 + 64


# Each message as it is sent, and what it says.
MESSAGES = {
    "greeting": (
        wire.GREETING,
        "4e42444d41474943 49484156454f5054 0003",
        lambda: (wire.INIT_MAGIC, wire.OPTION_MAGIC, 3),
    ),
    "client flags": (wire.CLIENT_FLAGS, "00000003", lambda: (3,)),
    "option": (wire.OPTION, "49484156454f5054 00000007 00000010", lambda: (wire.OPTION_MAGIC, 7, 16)),
    "option reply": (
        wire.OPTION_REPLY,
        "0003e889045565a9 00000007 80000006 00000004",
        lambda: (wire.REPLY_MAGIC, 7, 0x80000006, 4),
    ),
    "export": (wire.EXPORT, "0000010000000000 01ff", lambda: (2**40, 0x1FF)),
    "block sizes": (wire.BLOCK_SIZES, "00000200 00001000 02000000", lambda: (512, 4096, 2**25)),
    "information type": (wire.INFO_TYPE, "0003", lambda: (3,)),
    "context": (wire.CONTEXT_ID, "01020304", lambda: (0x01020304,)),
    "request": (
        wire.REQUEST,
        "25609513 0001 0003 0102030405060708 1112131415161718 21222324",
        lambda: (wire.REQUEST_MAGIC, 1, 3, 0x0102030405060708, 0x1112131415161718, 0x21222324),
    ),
    "extended request": (
        wire.EXTENDED_REQUEST,
        "21e41c71 0020 0001 0102030405060708 1112131415161718 2122232425262728",
        lambda: (wire.EXTENDED_REQUEST_MAGIC, 32, 1, 0x0102030405060708, 0x1112131415161718, 0x2122232425262728),
    ),
    "simple reply": (
        wire.SIMPLE_REPLY,
        "67446698 00000016 0102030405060708",
        lambda: (wire.SIMPLE_REPLY_MAGIC, 22, 0x0102030405060708),
    ),
    "structured reply": (
        wire.STRUCTURED_REPLY,
        "668e33ef 0001 8002 0102030405060708 11121314",
        lambda: (wire.STRUCTURED_REPLY_MAGIC, 1, 0x8002, 0x0102030405060708, 0x11121314),
    ),
    "extended reply": (
        wire.EXTENDED_REPLY,
        "6e8a278c 0001 0006 0102030405060708 1112131415161718 2122232425262728",
        lambda: (wire.EXTENDED_REPLY_MAGIC, 1, 6, 0x0102030405060708, 0x1112131415161718, 0x2122232425262728),
    ),
    "offset of data": (wire.DATA_OFFSET, "0102030405060708", lambda: (0x0102030405060708,)),
    "hole": (wire.HOLE, "0102030405060708 11121314", lambda: (0x0102030405060708, 0x11121314)),
    "error": (wire.ERROR, "0000001c 0005", lambda: (28, 5)),
    "offset of an error": (wire.ERROR_OFFSET, "0102030405060708", lambda: (0x0102030405060708,)),
    "extent": (wire.STATUS_EXTENT, "00001000 00000003", lambda: (4096, 3)),
    "context of extents": (wire.STATUS_EXT, "00000001 00000002", lambda: (1, 2)),
    "extended extent": (wire.STATUS_EXT_EXTENT, "0000010000000000 0000000000000003", lambda: (2**40, 3)),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name):
    layout, text, say = MESSAGES[name]
    assert layout.pack(*say()) == bytes.fromhex(text)
    assert layout.unpack(bytes.fromhex(text)) == say()


def test_option():
    data = wire.encode_option(Option.GO, b"payload")
    assert data == b"IHAVEOPT" + bytes.fromhex("00000007 00000007") + b"payload"
    assert wire.encode_option(Option.ABORT) == b"IHAVEOPT" + bytes.fromhex("00000002 00000000")


def test_go():
    assert wire.encode_go("disk") == bytes.fromhex("00000004") + b"disk" + bytes.fromhex("0000")
    assert wire.encode_go("", (Info.BLOCK_SIZE,)) == bytes.fromhex("00000000 0001 0003")


def test_names_are_utf8_and_counted_in_bytes():
    assert wire.encode_go("דיסק") == bytes.fromhex("00000008") + "דיסק".encode() + b"\0\0"


def test_meta_query():
    data = wire.encode_meta_query("a", ("base:allocation", "x:"))
    assert (
        data == bytes.fromhex("00000001 61 00000002 0000000f") + b"base:allocation" + bytes.fromhex("00000002") + b"x:"
    )


def test_request():
    data = wire.encode_request(Mode.STRUCTURED, CommandFlag.FUA, Command.WRITE, 7, 0x1122334455667788, 512)
    assert data == bytes.fromhex("25609513 0001 0001 0000000000000007 1122334455667788 00000200")


def test_simple_and_structured_requests_are_the_same():
    for mode in (Mode.SIMPLE, Mode.STRUCTURED):
        assert len(wire.encode_request(mode, 0, Command.READ, 0, 0, 1)) == wire.REQUEST.size


def test_extended_request():
    data = wire.encode_request(Mode.EXTENDED, 0, Command.BLOCK_STATUS, 1, 2, 2**40)
    assert data == bytes.fromhex("21e41c71 0000 0007 0000000000000001 0000000000000002 0000010000000000")


@pytest.mark.parametrize(
    "mode,size,magic",
    [(Mode.SIMPLE, 16, "67446698"), (Mode.STRUCTURED, 20, "668e33ef"), (Mode.EXTENDED, 32, "6e8a278c")],
)
def test_mode(mode, size, magic):
    assert mode.header.size == size
    assert mode.magic == int(magic, 16)


def test_errors_are_recognized():
    assert not wire.is_error(Reply.ACK)
    assert not wire.is_error(Reply.META_CONTEXT)
    assert wire.is_error(Reply.ERR_UNSUP)
    assert wire.is_error(0x8000_1234)
    assert wire.is_error(0x8000_0000)
    assert not wire.is_error(0x7FFF_FFFF)
    assert not wire.is_error_chunk(Chunk.BLOCK_STATUS)
    assert wire.is_error_chunk(Chunk.ERROR_OFFSET)
    assert wire.is_error_chunk(0x8000)
    assert not wire.is_error_chunk(0x7FFF)


def test_commands_are_named_as_people_name_them():
    assert str(Command.WRITE_ZEROES) == "write zeroes"
