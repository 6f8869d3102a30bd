"""Messages are encoded as the protocol document draws them."""

from __future__ import annotations

import pytest

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.wire import Chunk, Command, CommandFlag, Info, Mode, Option, Reply


def test_sizes():
    """The document counts the bytes of each header."""
    assert wire.GREETING.size == 18
    assert wire.OPTION.size == 16
    assert wire.OPTION_REPLY.size == 20
    assert wire.REQUEST.size == 28
    assert wire.EXTENDED_REQUEST.size == 32
    assert wire.SIMPLE_REPLY.size == 16
    assert wire.STRUCTURED_REPLY.size == 20
    assert wire.EXTENDED_REPLY.size == 32
    assert wire.EXPORT.size == 10
    assert wire.BLOCK_SIZES.size == 12


def test_option():
    data = wire.encode_option(Option.GO, b"payload")
    assert data == b"IHAVEOPT" + bytes.fromhex("00000007 00000007") + b"payload"


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


@pytest.mark.parametrize("mode,size", [(Mode.SIMPLE, 16), (Mode.STRUCTURED, 20), (Mode.EXTENDED, 32)])
def test_mode(mode, size):
    assert mode.header.size == size
    assert mode.header.pack(mode.magic, *[0] * (len(mode.header.format) - 2))[:4] == mode.magic.to_bytes(4, "big")


def test_errors_are_recognized():
    assert not wire.is_error(Reply.ACK)
    assert not wire.is_error(Reply.META_CONTEXT)
    assert wire.is_error(Reply.ERR_UNSUP)
    assert wire.is_error(0x8000_1234)
    assert not wire.is_error_chunk(Chunk.BLOCK_STATUS)
    assert wire.is_error_chunk(Chunk.ERROR_OFFSET)
    assert wire.is_error_chunk(0x8FFF)


def test_commands_are_named_as_people_name_them():
    assert str(Command.WRITE_ZEROES) == "write zeroes"
