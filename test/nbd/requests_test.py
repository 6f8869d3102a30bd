"""Requests are found as the protocol document draws them, and judged by what was offered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.nbd import requests, wire
from ovirt_imageio.nbd.errors import ClientFault
from ovirt_imageio.nbd.handshake import Agreement
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.requests import Request, Rules
from ovirt_imageio.nbd.wire import Command, CommandFlag, ExportFlag, Mode

SIZE = 1024**2
ALL = (
    ExportFlag.HAS_FLAGS
    | ExportFlag.SEND_FLUSH
    | ExportFlag.SEND_FUA
    | ExportFlag.SEND_WRITE_ZEROES
    | ExportFlag.SEND_DF
)
AGREED = Agreement(Mode.STRUCTURED, {0: "base:allocation"})

READ, WRITE, DISCONNECT, FLUSH, ZERO, STATUS = 0, 1, 2, 3, 6, 7


def request(command: int, offset: int = 0, length: int = 512, flags: int = 0, payload: int = -1) -> Request:
    """Return a request; a write has its payload."""
    return Request(flags, command, 1, offset, length, payload if payload >= 0 else (length if command == WRITE else 0))


def judge(one: Request, flags: ExportFlag = ALL, agreed: Agreement = AGREED, **offer: int) -> int:
    return Rules(Offer(SIZE, flags, **offer), agreed).judge(one)


def test_error_numbers():
    """Those of the protocol document, "Error values"."""
    numbers = (requests.EPERM, requests.EIO, requests.EINVAL, requests.ENOSPC, requests.ENOTSUP)
    assert numbers == (1, 5, 22, 28, 95)


def test_find():
    data = bytearray.fromhex("25609513 0001 0001 0000000000000007 1122334455667788 00000200 ff")
    assert requests.find(data, 0, 28, Mode.SIMPLE) == (1, 1, 7, 0x1122334455667788, 512, 512)
    assert requests.find(data, 0, 27, Mode.SIMPLE) is None
    assert requests.find(data, 2, 29, Mode.SIMPLE) is None
    assert requests.find(memoryview(b"\xff" + data), 1, 29, Mode.STRUCTURED) == (1, 1, 7, 0x1122334455667788, 512, 512)


def test_find_with_extended_headers():
    data = bytearray.fromhex("21e41c71 0000 0007 0000000000000001 0000000000000002 0000010000000000")
    assert requests.find(data, 0, 32, Mode.EXTENDED) == (0, 7, 1, 2, 2**40, 0)
    assert requests.find(data, 0, 31, Mode.EXTENDED) is None
    data[5] |= CommandFlag.PAYLOAD_LENGTH
    assert requests.find(data, 0, 32, Mode.EXTENDED) == (32, 7, 1, 2, 2**40, 2**40)


def test_find_a_write_of_qemu_10():
    """It does not tell that a payload follows, which no write is without."""
    data = bytearray.fromhex("21e41c71 0001 0001 0000000000000007 0000000000001000 0000000000000400 07")
    assert requests.find(data, 0, 33, Mode.EXTENDED) == (1, 1, 7, 4096, 1024, 1024)


@pytest.mark.parametrize("mode", Mode)
def test_wrong_magic(mode):
    with pytest.raises(ClientFault):
        requests.find(bytearray(32), 0, 32, mode)


@given(st.integers(0, 3), st.sampled_from([*Command]), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_find_what_our_client_sends(flags, command, offset, length):
    for mode in Mode:
        data = wire.encode_request(mode, flags, command, 5, offset, length)
        found = requests.find(bytearray(data), 0, len(data), mode)
        assert found is not None
        assert found[:5] == (flags, command, 5, offset, length)


GOOD = {
    "read": request(READ),
    "the last byte": request(READ, SIZE - 1, 1),
    "read in one chunk": request(READ, flags=4),
    "write": request(WRITE),
    "write all": request(WRITE, 0, SIZE),
    "write at once": request(WRITE, flags=1),
    "flush": request(FLUSH, 0, 0),
    "zero": request(ZERO, 0, SIZE),
    "zero, but no hole": request(ZERO, flags=2),
    "status": request(STATUS, 0, SIZE),
    "status of one extent": request(STATUS, flags=8),
    "good-bye": request(DISCONNECT, 0, 0),
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name):
    assert judge(GOOD[name]) == 0


EINVAL, ENOSPC, EPERM = 22, 28, 1

BAD = {
    "read of nothing": (request(READ, 0, 0), EINVAL),
    "read beyond the end": (request(READ, SIZE - 511), EINVAL),
    "read at 2^64": (request(READ, 2**64 - 512), EINVAL),
    "read that is too long": (request(READ, 0, 32 * 1024**2 + 1), EINVAL),
    "write of nothing": (request(WRITE, 0, 0), EINVAL),
    "write beyond the end": (request(WRITE, SIZE - 511), ENOSPC),
    "write at 2^64": (request(WRITE, 2**64 - 1), ENOSPC),
    "zero beyond the end": (request(ZERO, 1, SIZE), ENOSPC),
    "flush of a range": (request(FLUSH, 0, 512), EINVAL),
    "status beyond the end": (request(STATUS, 1, SIZE), EINVAL),
    "status of nothing": (request(STATUS, 0, 0), EINVAL),
    "unknown command": (request(99), EINVAL),
    "trim, which is not offered": (request(4), EINVAL),
    "unknown flag": (request(READ, flags=0x8000), EINVAL),
    "flag of another command": (request(READ, flags=2), EINVAL),
    "payload flag in short headers": (request(READ, flags=32), EINVAL),
}


@pytest.mark.parametrize("name", BAD)
def test_bad(name):
    one, code = BAD[name]
    assert judge(one) == code


@pytest.mark.parametrize("command", [WRITE, ZERO])
def test_nothing_changes_a_disk_that_is_read_only(command):
    flags = ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY
    assert judge(request(command), flags) == EPERM
    # Also where more is wrong.
    assert judge(request(command, 2**64 - 1, flags=0xFFFF), flags) == EPERM


def test_what_is_not_offered_is_invalid():
    for command in (FLUSH, ZERO):
        assert judge(request(command, 0, 0), ExportFlag.HAS_FLAGS) == EINVAL
    assert judge(request(READ, flags=1), ExportFlag.HAS_FLAGS) == EINVAL
    assert judge(request(STATUS), agreed=Agreement(Mode.STRUCTURED)) == EINVAL
    assert judge(request(READ, flags=4), agreed=Agreement(Mode.SIMPLE)) == EINVAL


@pytest.mark.parametrize("can_punch", [True, False])
def test_zeroing_may_give_space_back(can_punch):
    assert Rules(Offer(SIZE, ExportFlag.HAS_FLAGS, can_punch=can_punch), Agreement()).can_punch is can_punch


def test_blocks():
    for one in (request(READ, 512, 4096), request(READ, 0, 512), request(WRITE, 4096, 100), request(STATUS, 1, 4096)):
        assert judge(one, minimum_block=4096) == EINVAL
    assert judge(request(READ, 4096, 8192), minimum_block=4096) == 0


def test_longest_request():
    for command in (READ, WRITE):
        assert judge(request(command, 0, 4096), maximum_block=4096) == 0
    assert judge(request(READ, 0, 4097), maximum_block=4096) == EINVAL
    # What has no payload may be longer.
    assert judge(request(ZERO, 0, 8192), maximum_block=4096) == 0


def test_a_payload_that_nobody_sends_by_mistake():
    for one in (request(WRITE, 0, 32 * 1024**2 + 1), request(STATUS, flags=32, payload=2**40)):
        with pytest.raises(ClientFault):
            judge(one)


def test_payload_with_extended_headers():
    agreed = Agreement(Mode.EXTENDED, {0: "base:allocation"})
    assert judge(request(WRITE, flags=32), agreed=agreed) == 0
    assert judge(request(WRITE), agreed=agreed) == 0
    # A status of chosen contexts is not offered: its payload is dropped.
    assert judge(request(STATUS, flags=32, payload=512), agreed=agreed) == EINVAL


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 8),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)
def test_what_is_good_is_within_the_disk(flags, command, offset, length, is_read_only):
    offered = ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY if is_read_only else ALL
    one = request(command, offset, length, flags, min(length, SIZE) if command == WRITE else 0)
    if judge(one, offered) == 0:
        assert offset + length <= SIZE
        assert not (is_read_only and command in (WRITE, ZERO))
