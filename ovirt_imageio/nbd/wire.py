"""The words of the NBD protocol: its numbers, and how one message becomes bytes.

Pure: knows neither sockets nor the order of messages. All integers are big endian. The names follow the protocol
document, doc/proto.md of the NBD project.
"""

from __future__ import annotations

import enum
import struct

__all__ = [
    "EXTENDED_REPLY",
    "EXTENDED_REQUEST",
    "GREETING",
    "OPTION",
    "OPTION_REPLY",
    "SIMPLE_REPLY",
    "STRUCTURED_REPLY",
    "Chunk",
    "Command",
    "CommandFlag",
    "ExportFlag",
    "HandshakeFlag",
    "Info",
    "Mode",
    "Option",
    "Reply",
    "encode_go",
    "encode_meta_query",
    "encode_option",
    "encode_request",
    "encode_string",
    "is_error",
    "is_error_chunk",
]

# --- Handshake -------------------------------------------------------------------------------------------------------

INIT_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
REPLY_MAGIC = 0x0003E889045565A9

GREETING = struct.Struct(">8s8sH")  # magic, magic, handshake flags
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">8sII")  # magic, option, length
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, type, length
EXPORT = struct.Struct(">QH")  # size, transmission flags
BLOCK_SIZES = struct.Struct(">III")  # minimum, preferred, maximum
INFO_TYPE = struct.Struct(">H")
CONTEXT_ID = struct.Struct(">I")

# Follows the answer to EXPORT_NAME unless both sides agreed to leave it out.
EXPORT_NAME_PADDING = 124

# Names, messages and descriptions: "Strings ... MUST NOT exceed 4096 bytes".
MAX_STRING = 4096
# The longest payload of an answer to an option: a string, and what comes before it.
MAX_OPTION_REPLY = MAX_STRING + 64


class HandshakeFlag(enum.IntFlag):
    """What both sides say first."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class Option(enum.IntEnum):
    """What the client may ask for while negotiating."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class Reply(enum.IntEnum):
    """How the server may answer an option. The errors have the highest bit set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x8000_0001
    ERR_POLICY = 0x8000_0002
    ERR_INVALID = 0x8000_0003
    ERR_PLATFORM = 0x8000_0004
    ERR_TLS_REQD = 0x8000_0005
    ERR_UNKNOWN = 0x8000_0006
    ERR_SHUTDOWN = 0x8000_0007
    ERR_BLOCK_SIZE_REQD = 0x8000_0008
    ERR_TOO_BIG = 0x8000_0009
    ERR_EXT_HEADER_REQD = 0x8000_000A


class Info(enum.IntEnum):
    """What an answer to GO may tell."""

    EXPORT = 0
    NAME = 1
    BLOCK_SIZE = 3


class ExportFlag(enum.IntFlag):
    """What can be done with an export: the transmission flags."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8


# --- Transmission ----------------------------------------------------------------------------------------------------

REQUEST_MAGIC = 0x25609513
EXTENDED_REQUEST_MAGIC = 0x21E41C71
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
EXTENDED_REPLY_MAGIC = 0x6E8A278C

REQUEST = struct.Struct(">IHHQQI")  # magic, flags, command, cookie, offset, length
EXTENDED_REQUEST = struct.Struct(">IHHQQQ")

# The flags in the header of a request of either kind, and where they are.
REQUEST_FLAGS = struct.Struct(">H")
REQUEST_FLAGS_AT = 4
SIMPLE_REPLY = struct.Struct(">IIQ")  # magic, error, cookie
STRUCTURED_REPLY = struct.Struct(">IHHQI")  # magic, flags, type, cookie, length
EXTENDED_REPLY = struct.Struct(">IHHQQQ")  # magic, flags, type, cookie, offset, length

# What begins the payload of a chunk.
DATA_OFFSET = struct.Struct(">Q")
ONE_CHUNK = struct.Struct(">IHHQIQ")  # STRUCTURED_REPLY and DATA_OFFSET
HOLE = struct.Struct(">QI")  # offset, length
ERROR = struct.Struct(">IH")  # error, length of the message
ERROR_OFFSET = struct.Struct(">Q")
STATUS_EXTENT = struct.Struct(">II")  # length, flags
STATUS_EXT = struct.Struct(">II")  # context, count
STATUS_EXT_EXTENT = struct.Struct(">QQ")  # length, flags

# The longest request of a header that is not extended.
MAX_LENGTH = 0xFFFF_FFFF


class Mode(enum.Enum):
    """How replies look like, as negotiated: the longest header, and the word that begins it."""

    SIMPLE = (SIMPLE_REPLY, SIMPLE_REPLY_MAGIC)
    STRUCTURED = (STRUCTURED_REPLY, STRUCTURED_REPLY_MAGIC)
    EXTENDED = (EXTENDED_REPLY, EXTENDED_REPLY_MAGIC)

    @property
    def header(self) -> struct.Struct:
        """The header of a reply."""
        return self.value[0]

    @property
    def magic(self) -> int:
        """The word that begins it."""
        return self.value[1]


class Command(enum.IntEnum):
    """What can be asked for."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


# The commands that change a disk, or are about earlier changes.
CHANGES = frozenset([Command.WRITE, Command.WRITE_ZEROES, Command.FLUSH])


class CommandFlag(enum.IntFlag):
    """How it shall be done."""

    NONE = 0
    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    PAYLOAD_LENGTH = 1 << 5


class Chunk(enum.IntEnum):
    """What one piece of a structured reply holds. The errors have the highest bit set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    BLOCK_STATUS_EXT = 6
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


# The only flag of a chunk: it is the last one of its reply.
CHUNK_DONE = 1

# What the flags of the meta contexts mean.
BASE_ALLOCATION = "base:allocation"
ALLOCATION_DEPTH = "qemu:allocation-depth"
DIRTY_BITMAP = "qemu:dirty-bitmap:"
STATE_HOLE = 1 << 0  # in base:allocation
STATE_ZERO = 1 << 1  # in base:allocation
STATE_DIRTY = 1 << 0  # in a dirty bitmap


def is_error(reply: int) -> bool:
    """True if this type of an answer to an option is an error."""
    return bool(reply & 0x8000_0000)


def is_error_chunk(kind: int) -> bool:
    """True if this type of chunk is an error, even one that we do not know."""
    return bool(kind & 0x8000)


def encode_option(option: int, payload: bytes = b"") -> bytes:
    """Return the message that asks for an option."""
    return OPTION.pack(OPTION_MAGIC, option, len(payload)) + payload


def encode_string(text: str) -> bytes:
    """Return the text with its length before it."""
    data = text.encode("utf-8")
    return struct.pack(">I", len(data)) + data


def encode_go(export: str, infos: tuple[Info, ...] = ()) -> bytes:
    """Return the payload of GO: the export, and what we want to be told."""
    return encode_string(export) + struct.pack(f">{len(infos) + 1}H", len(infos), *infos)


def encode_meta_query(export: str, queries: tuple[str, ...]) -> bytes:
    """Return the payload of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return encode_string(export) + struct.pack(">I", len(queries)) + b"".join(map(encode_string, queries))


def encode_request(mode: Mode, flags: int, command: int, cookie: int, offset: int, length: int) -> bytes:
    """Return the header of a request."""
    if mode is Mode.EXTENDED:
        return EXTENDED_REQUEST.pack(EXTENDED_REQUEST_MAGIC, flags, command, cookie, offset, length)
    return REQUEST.pack(REQUEST_MAGIC, flags, command, cookie, offset, length)
