"""The records of TLS that hold no data: how they pass the kernel, and what each of them asks of the side that gets it.

    Reader.take(type, record) ──> Reaction         go on, end, or say that the keys stay as they are
                              └─> BrokenTLS        anything that must not be, or that the kernel cannot follow

Needed where the kernel encrypts: it hands over the type of a record, and all but data is ours. Alerts are those of
RFC 8446 section 6 and RFC 5246 section 7.2, messages those of RFC 8446 section 4.6 and RFC 5246 section 7.4.

Pure: no sockets.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

__all__ = [
    "CLOSE_NOTIFY",
    "NO_RENEGOTIATION",
    "RECORD",
    "SOL_TLS",
    "TLS_1_3",
    "BrokenTLS",
    "Reaction",
    "Reader",
    "Record",
    "ancillary",
    "type_of",
]

# The level of the options and control messages of the kernel: include/linux/socket.h, include/uapi/linux/tls.h.
SOL_TLS = 282
SET_RECORD_TYPE = 1
GET_RECORD_TYPE = 2

TLS_1_3 = 0x0304

# No record is longer, RFC 8446 section 5.1.
RECORD = 16 * 1024


class Record(enum.IntEnum):
    """The types of the records that are taken."""

    ALERT = 21
    HANDSHAKE = 22


class Message(enum.IntEnum):
    """The messages of the handshake that may come after it."""

    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    NEW_SESSION_TICKET = 4
    KEY_UPDATE = 24


# Two alerts, of the level "warning", which is all that they can be.
CLOSE_NOTIFY = b"\x01\x00"
NO_RENEGOTIATION = b"\x01\x64"

# Why most alerts are sent; others are told by their number.
ALERTS = {
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
USER_CANCELED = 90

WARNING = 1

# The type of a message and its length.
MESSAGE_HEAD = 4

# More of them one after the other, and no data, only keep us busy; OpenSSL has the same limit.
RECORDS_LIMIT = 32


class BrokenTLS(ConnectionError):
    """The connection cannot be used any more, and why."""


class Reaction(enum.Enum):
    """What a record asks for."""

    GO_ON = "nothing"
    END = "the peer will send nothing more"
    REFUSE = "the peer wants other keys, and is to be told that there are none"


class Reader:
    """Takes what comes to a server, or to a client, between data.

    Threads: one at a time.
    """

    def __init__(self, *, is_server: bool, version: int) -> None:
        self._is_server = is_server
        self._version = version
        # How many came since there was data.
        self._count = 0
        # The beginning of a message, and how much of one that is not for us is still to come.
        self._begun = b""
        self._left = 0

    def note_data(self) -> None:
        """Note that data came."""
        self._count = 0

    def take(self, kind: int, record: bytes) -> Reaction:
        """Take a whole record. Raises BrokenTLS."""
        self._count += 1
        if self._count > RECORDS_LIMIT:
            raise BrokenTLS(f"the peer sent {self._count} TLS records without data, one after the other")
        if kind == Record.ALERT:
            return self._take_alert(record)
        if kind == Record.HANDSHAKE:
            return self._take_messages(record)
        raise BrokenTLS(f"the peer sent a TLS record of the type {kind}, which does not belong here")

    def _take_alert(self, record: bytes) -> Reaction:
        if len(record) != len(CLOSE_NOTIFY):
            raise BrokenTLS(f"the peer sent a TLS alert of {len(record)} bytes instead of {len(CLOSE_NOTIFY)}")
        level, reason = record
        if reason == CLOSE_NOTIFY[1]:
            return Reaction.END
        # In TLS 1.3 the level says nothing, and all but this one are fatal.
        if reason == USER_CANCELED or (level == WARNING and self._version < TLS_1_3):
            return Reaction.GO_ON
        raise BrokenTLS(f"the peer sent the TLS alert {ALERTS.get(reason, reason)}")

    def _take_messages(self, record: bytes) -> Reaction:
        """Take messages, of which a record has several, or a part of one."""
        reaction = Reaction.GO_ON
        data = self._begun + record
        while data:
            skipped = min(self._left, len(data))
            self._left -= skipped
            data = data[skipped:]
            if len(data) < MESSAGE_HEAD:
                break
            if self._wants_keys(data[0]):
                reaction = Reaction.REFUSE
            self._left = MESSAGE_HEAD + int.from_bytes(data[1:MESSAGE_HEAD], "big")
        self._begun = data
        return reaction

    def _wants_keys(self, kind: int) -> bool:
        """Return whether a message asks for other keys.

        Raises BrokenTLS for one that must not come, or that we cannot obey.
        """
        if self._version >= TLS_1_3:
            if kind == Message.KEY_UPDATE:
                raise BrokenTLS("the peer changed its TLS keys, and the kernel cannot; see [tls] kernel")
            if kind == Message.NEW_SESSION_TICKET and not self._is_server:
                return False
        elif kind == (Message.CLIENT_HELLO if self._is_server else Message.HELLO_REQUEST):
            return True
        raise BrokenTLS(f"the peer sent the TLS message {kind}, which does not belong here")


def ancillary(kind: Record) -> list[tuple[int, int, bytes]]:
    """Return what tells the kernel with socket.sendmsg() that the bytes are a record of this type."""
    return [(SOL_TLS, SET_RECORD_TYPE, bytes([kind]))]


def type_of(messages: Iterable[tuple[int, int, bytes]]) -> int:
    """Return the type of the record that came, by what socket.recvmsg() returned with it. Raises BrokenTLS."""
    for level, name, value in messages:
        if (level, name) == (SOL_TLS, GET_RECORD_TYPE) and value:
            return value[0]
    raise BrokenTLS("the kernel did not tell the type of a TLS record")
