"""What a record without data asks for, by the bytes that real peers send."""

from __future__ import annotations

import pytest

from ovirt_imageio.net import controls
from ovirt_imageio.net.controls import BrokenTLS, Reaction, Reader

ALERT, HANDSHAKE = 21, 22
TLS_1_2 = 0x0303
TLS_1_3 = 0x0304

KEY_UPDATE = b"\x18\x00\x00\x01\x01"
HELLO_REQUEST = b"\x00\x00\x00\x00"
CLIENT_HELLO = b"\x01\x00\x00\x05hello"
SESSION_TICKET = b"\x04\x00\x00\x06ticket"


def server(version=TLS_1_3):
    return Reader(is_server=True, version=version)


def client(version=TLS_1_3):
    return Reader(is_server=False, version=version)


def refusal(reader, kind, record):
    with pytest.raises(BrokenTLS) as info:
        reader.take(kind, record)
    return str(info.value)


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("record", [b"\x01\x00", b"\x02\x00"])
def test_close_notify(version, record):
    assert server(version).take(ALERT, record) is Reaction.END
    assert client(version).take(ALERT, record) is Reaction.END


@pytest.mark.parametrize("make", [server, client])
def test_canceled_comes_before_close_notify(make):
    assert make().take(ALERT, b"\x01\x5a") is Reaction.GO_ON


def test_warnings_are_heard_in_tls_1_2_only():
    assert server(TLS_1_2).take(ALERT, b"\x01\x64") is Reaction.GO_ON
    assert "TLS alert 100" in refusal(server(), ALERT, b"\x01\x64")


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_fatal_alert(version):
    assert "TLS alert bad record mac" in refusal(server(version), ALERT, b"\x02\x14")
    assert "TLS alert 71" in refusal(client(version), ALERT, b"\x02\x47")


# As RFC 8446 section 6 has them.
TOLD = {
    10: "unexpected message",
    20: "bad record mac",
    22: "record overflow",
    40: "handshake failure",
    42: "bad certificate",
    45: "certificate expired",
    46: "certificate unknown",
    48: "unknown ca",
    50: "decode error",
    51: "decrypt error",
    80: "internal error",
    116: "certificate required",
}


def test_each_alert():
    for number in range(256):
        # The end, and that the user canceled.
        if number not in (0, 90):
            text = refusal(server(), ALERT, bytes([2, number]))
            assert text == f"the peer sent the TLS alert {TOLD.get(number, number)}"


@pytest.mark.parametrize("record", [b"", b"\x01", b"\x01\x00\x01"])
def test_alert_of_another_length(record):
    assert f"{len(record)} bytes" in refusal(server(), ALERT, record)


@pytest.mark.parametrize("make", [server, client])
@pytest.mark.parametrize("asks", [b"\x00", b"\x01"])
def test_key_update(make, asks):
    assert "changed its TLS keys" in refusal(make(), HANDSHAKE, KEY_UPDATE[:4] + asks)


def test_session_tickets_are_for_clients():
    assert client().take(HANDSHAKE, SESSION_TICKET) is Reaction.GO_ON
    assert "TLS message 4" in refusal(server(), HANDSHAKE, SESSION_TICKET)
    assert "TLS message 4" in refusal(client(TLS_1_2), HANDSHAKE, SESSION_TICKET)


def test_renegotiation():
    assert server(TLS_1_2).take(HANDSHAKE, CLIENT_HELLO) is Reaction.REFUSE
    assert client(TLS_1_2).take(HANDSHAKE, HELLO_REQUEST) is Reaction.REFUSE
    # In TLS 1.3 there is none, and nobody asks the other way round.
    assert "TLS message 1" in refusal(server(), HANDSHAKE, CLIENT_HELLO)
    assert "TLS message 0" in refusal(client(), HANDSHAKE, HELLO_REQUEST)
    assert "TLS message 0" in refusal(server(TLS_1_2), HANDSHAKE, HELLO_REQUEST)
    assert "TLS message 1" in refusal(client(TLS_1_2), HANDSHAKE, CLIENT_HELLO)


def test_several_messages_in_one_record():
    assert client().take(HANDSHAKE, SESSION_TICKET * 3) is Reaction.GO_ON
    assert "changed its TLS keys" in refusal(client(), HANDSHAKE, SESSION_TICKET + KEY_UPDATE)


@pytest.mark.parametrize("size", range(1, len(SESSION_TICKET) + 1))
def test_message_in_several_records(size):
    reader = client()
    data = SESSION_TICKET * 2
    for start in range(0, len(data), size):
        assert reader.take(HANDSHAKE, data[start : start + size]) is Reaction.GO_ON
    # The next message begins where the last one ended, whatever was inside of it.
    assert "changed its TLS keys" in refusal(reader, HANDSHAKE, KEY_UPDATE)


def test_long_message():
    """The length has three bytes."""
    reader = client()
    assert reader.take(HANDSHAKE, b"\x04\x01\x02\x03") is Reaction.GO_ON
    for size in (0x10000, 0x200, 0x3):
        assert reader.take(HANDSHAKE, b"\xff" * size) is Reaction.GO_ON
    assert "changed its TLS keys" in refusal(reader, HANDSHAKE, KEY_UPDATE)


def test_what_a_message_holds_is_not_looked_at():
    reader = client()
    assert reader.take(HANDSHAKE, b"\x04\x00\x00\x0a" + KEY_UPDATE) is Reaction.GO_ON
    assert reader.take(HANDSHAKE, KEY_UPDATE) is Reaction.GO_ON
    assert "changed its TLS keys" in refusal(reader, HANDSHAKE, KEY_UPDATE)


@pytest.mark.parametrize("kind", [0, 20, 23, 24, 255])
def test_unknown_type(kind):
    assert f"type {kind}" in refusal(server(), kind, b"")


def test_flood():
    reader = client()
    for _ in range(32):
        reader.take(HANDSHAKE, SESSION_TICKET)
    assert "33 TLS records without data" in refusal(reader, HANDSHAKE, SESSION_TICKET)


def test_data_makes_it_no_flood():
    reader = client()
    for _ in range(100):
        reader.take(HANDSHAKE, SESSION_TICKET)
        reader.note_data()
    for _ in range(32):
        reader.take(HANDSHAKE, SESSION_TICKET)
    assert "33 TLS records without data" in refusal(reader, HANDSHAKE, SESSION_TICKET)


def test_empty_records_are_a_flood_too():
    reader = server(TLS_1_2)
    for _ in range(32):
        assert reader.take(HANDSHAKE, b"") is Reaction.GO_ON
    assert "without data" in refusal(reader, HANDSHAKE, b"")


def test_numbers_of_the_protocol():
    """RFC 8446 section 5.1, RFC 5246 section 7.2: what those send that use these names."""
    assert (controls.CLOSE_NOTIFY, controls.NO_RENEGOTIATION) == (b"\x01\x00", b"\x01\x64")
    assert controls.RECORD == 16384


def test_what_passes_the_kernel():
    """As include/uapi/linux/tls.h and include/linux/socket.h have it: the level 282, and 1 to set, 2 to get."""
    assert controls.ancillary(controls.Record.ALERT) == [(282, 1, b"\x15")]
    assert controls.type_of([(1, 2, b"\x17"), (282, 1, b"\x17"), (282, 2, b"\x16")]) == 22
    with pytest.raises(BrokenTLS):
        controls.type_of([])
    with pytest.raises(BrokenTLS):
        controls.type_of([(282, 2, b"")])
