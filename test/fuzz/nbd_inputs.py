"""What the two sides of an NBD connection may send, and what becomes of it.

REQUESTS: what a client sends to a disk of 64 KiB: the mode, the bytes, the error that answers each cookie (0: none),
and whether the client "left" or broke the protocol ("fault").

REPLIES: what a server sends to a client that asked, by the cookies 0 to 3, for the 64 bytes at 4096, for the same
again, for their status in one context, and for a flush: the mode, the bytes, how many commands ended well and how many
failed, and the verdicts of our client and of our gate: "good", "more" if more must come, or "fault". The gate checks
what it must to pass bytes on, and leaves the rest to its client.
"""

from __future__ import annotations

import struct

from ovirt_imageio.nbd.wire import Mode

__all__ = ["REPLIES", "REQUESTS", "ask", "chunk", "data", "simple"]

READ, WRITE, DISCONNECT, FLUSH, TRIM, ZERO, STATUS = 0, 1, 2, 3, 4, 6, 7
EPERM, EIO, EINVAL, ENOSPC = 1, 5, 22, 28
SIZE = 64 * 1024

SIMPLE, STRUCTURED, EXTENDED = Mode.SIMPLE, Mode.STRUCTURED, Mode.EXTENDED


def ask(
    command: int,
    cookie: int,
    offset: int = 0,
    length: int = 512,
    payload: bytes = b"",
    flags: int = 0,
    long: bool = False,
) -> bytes:
    """Return a request as the protocol document draws it; a long one has an extended header."""
    if long:
        return struct.pack(">IHHQQQ", 0x21E41C71, flags, command, cookie, offset, length) + payload
    return struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length) + payload


def simple(cookie: int, error: int = 0, payload: bytes = b"") -> bytes:
    """Return a simple reply."""
    return struct.pack(">IIQ", 0x67446698, error, cookie) + payload


def chunk(kind: int, cookie: int, payload: bytes = b"", done: int = 1, offset: int = 4096, long: bool = False) -> bytes:
    """Return one chunk of a structured reply; a long one has an extended header."""
    if long:
        return struct.pack(">IHHQQQ", 0x6E8A278C, done, kind, cookie, offset, len(payload)) + payload
    return struct.pack(">IHHQI", 0x668E33EF, done, kind, cookie, len(payload)) + payload


def data(start: int, length: int) -> bytes:
    """Return the payload of a chunk of data: `length` bytes at 4096 + `start`."""
    return struct.pack(">Q", 4096 + start) + b"d" * length


PAST = ask(READ, 9)
BYE = ask(DISCONNECT, 8, 0, 0)

REQUESTS: dict[str, tuple[Mode, bytes, dict[int, int], str]] = {
    "nothing": (STRUCTURED, b"", {}, "left"),
    "reads": (STRUCTURED, ask(READ, 1) + ask(READ, 2, 512), {1: 0, 2: 0}, "left"),
    "all commands": (
        STRUCTURED,
        ask(READ, 1) + ask(WRITE, 2, 0, 3, b"abc") + ask(ZERO, 3) + ask(STATUS, 4) + ask(FLUSH, 5, 0, 0) + BYE,
        {1: 0, 2: 0, 3: 0, 4: 0, 5: 0},
        "left",
    ),
    "the same, with simple replies": (
        SIMPLE,
        ask(READ, 1) + ask(WRITE, 2, 0, 3, b"abc") + ask(ZERO, 3) + ask(STATUS, 4) + ask(FLUSH, 5, 0, 0) + BYE,
        # Without structured replies there is no status.
        {1: 0, 2: 0, 3: 0, 4: EINVAL, 5: 0},
        "left",
    ),
    # Ranges
    "last byte": (STRUCTURED, ask(READ, 1, SIZE - 1, 1), {1: 0}, "left"),
    "read beyond the end": (STRUCTURED, ask(READ, 1, SIZE - 1, 2), {1: EINVAL}, "left"),
    "write beyond the end": (STRUCTURED, ask(WRITE, 1, SIZE - 1, 2, b"ab") + PAST, {1: ENOSPC, 9: 0}, "left"),
    "zero beyond the end": (STRUCTURED, ask(ZERO, 1, SIZE, 1), {1: ENOSPC}, "left"),
    "last offset of all": (STRUCTURED, ask(READ, 1, 2**64 - 1, 1), {1: EINVAL}, "left"),
    "range that wraps around": (STRUCTURED, ask(WRITE, 1, 2**64 - 2, 4, b"abcd"), {1: ENOSPC}, "left"),
    "no bytes": (STRUCTURED, ask(READ, 1, 0, 0) + ask(WRITE, 2, 0, 0), {1: EINVAL, 2: EINVAL}, "left"),
    "flush of a range": (STRUCTURED, ask(FLUSH, 1, 0, 512), {1: EINVAL}, "left"),
    "longest zeroes": (STRUCTURED, ask(ZERO, 1, 0, 2**32 - 1), {1: ENOSPC}, "left"),
    # Commands and flags
    "no such command": (STRUCTURED, ask(99, 1) + PAST, {1: EINVAL, 9: 0}, "left"),
    "trim, which is not offered": (STRUCTURED, ask(TRIM, 1), {1: EINVAL}, "left"),
    "no such flag": (STRUCTURED, ask(READ, 1, flags=1 << 15), {1: EINVAL}, "left"),
    "do not fragment, with simple replies": (SIMPLE, ask(READ, 1, flags=1 << 2), {1: EINVAL}, "left"),
    "payload flag without extended headers": (
        STRUCTURED,
        ask(WRITE, 1, 0, 3, b"abc", flags=1 << 5) + PAST,
        {1: EINVAL, 9: 0},
        "left",
    ),
    "extended write": (EXTENDED, ask(WRITE, 1, 0, 3, b"abc", 1 << 5, True), {1: 0}, "left"),
    # As qemu 10 writes.
    "extended write without its flag": (EXTENDED, ask(WRITE, 1, 0, 3, b"abc", long=True), {1: 0}, "left"),
    "extended read with a payload": (
        EXTENDED,
        ask(READ, 1, 0, 3, b"abc", 1 << 5, True) + ask(READ, 9, long=True),
        {1: EINVAL, 9: 0},
        "left",
    ),
    "extended length": (EXTENDED, ask(READ, 1, 0, 2**63, long=True), {1: EINVAL}, "left"),
    # What is unknown from there on
    # Found by comparing server and gate: the gate waited for the rest of what it did not look at, until its time-out.
    "requests behind the good-bye": (STRUCTURED, ask(READ, 1) + BYE + ask(READ, 2) + b"?", {1: 0}, "left"),
    "half a header": (STRUCTURED, ask(READ, 1)[:27], {}, "fault"),
    "half a payload": (STRUCTURED, ask(WRITE, 1, 0, 512, bytes(511)), {}, "fault"),
    "half a payload of a refused write": (STRUCTURED, ask(WRITE, 1, SIZE, 512, bytes(511)), {}, "fault"),
    "another protocol": (STRUCTURED, b"GET /images/1 HTTP/1.1\r\nHost: a\r\n\r\n", {}, "fault"),
    "reply of a server": (STRUCTURED, simple(1) + bytes(20), {}, "fault"),
    "extended header, not agreed": (STRUCTURED, ask(READ, 1, long=True), {}, "fault"),
    "header that is not extended": (EXTENDED, ask(READ, 1) + bytes(20), {}, "fault"),
    "payload that is too long": (STRUCTURED, ask(WRITE, 1, 0, 32 * 1024**2 + 1), {}, "fault"),
    "payload without end": (EXTENDED, ask(WRITE, 1, 0, 2**64 - 1, flags=1 << 5, long=True), {}, "fault"),
}

# What answers the four requests.
READS = chunk(1, 0, data(0, 64)) + chunk(1, 1, data(0, 64))
STATUSES = chunk(5, 2, struct.pack(">III", 0, 64, 3))
ALL = READS + STATUSES + simple(3)

REPLIES: dict[str, tuple[Mode, bytes, tuple[int, int], str, str]] = {
    "all of it": (STRUCTURED, ALL, (4, 0), "good", "good"),
    "in another order": (STRUCTURED, simple(3) + STATUSES + READS, (4, 0), "good", "good"),
    "in pieces, the later one first": (
        STRUCTURED,
        chunk(1, 0, data(32, 32), 0) + chunk(2, 0, struct.pack(">QI", 4096, 32)) + ALL[92:],
        (4, 0),
        "good",
        "good",
    ),
    "errors": (
        STRUCTURED,
        chunk(0x8001, 0, struct.pack(">IH", EIO, 3) + b"bad")
        + chunk(0x8002, 1, struct.pack(">IHQ", EIO, 0, 4096))
        + chunk(0x8001, 2, struct.pack(">IH", EINVAL, 0))
        + simple(3, ENOSPC),
        (0, 4),
        "good",
        "good",
    ),
    "simple replies": (SIMPLE, simple(0, 0, bytes(64)) + simple(1, EIO) + simple(3), (2, 1), "good", "good"),
    "extended headers": (
        EXTENDED,
        chunk(1, 0, data(0, 64), long=True)
        + chunk(1, 1, data(0, 64), long=True)
        + chunk(6, 2, struct.pack(">IIQQ", 0, 1, 64, 3), long=True)
        + chunk(0, 3, offset=0, long=True),
        (4, 0),
        "good",
        "good",
    ),
    "nothing": (STRUCTURED, b"", (0, 0), "more", "good"),
    "half a header": (STRUCTURED, ALL[:10], (0, 0), "more", "more"),
    "half of the data": (STRUCTURED, ALL[:50], (0, 0), "more", "more"),
    # A parser cannot go on behind these.
    "another protocol": (STRUCTURED, b"HTTP/1.1 200 OK\r\n\r\n" + bytes(20), (0, 0), "fault", "fault"),
    "request of a client": (STRUCTURED, ask(READ, 0), (0, 0), "fault", "fault"),
    "cookie of no request": (STRUCTURED, simple(4), (0, 0), "fault", "fault"),
    "reply twice": (STRUCTURED, simple(3) + simple(3) + bytes(4), (1, 0), "fault", "fault"),
    "simple reply to a read": (STRUCTURED, simple(0, 0, bytes(64)), (0, 0), "fault", "fault"),
    "structured, not agreed": (SIMPLE, READS, (0, 0), "fault", "fault"),
    "simple, where all are extended": (EXTENDED, simple(3) + bytes(16), (0, 0), "fault", "fault"),
    "data for a flush": (STRUCTURED, chunk(1, 3, data(0, 64)), (0, 0), "fault", "fault"),
    "more data than asked for": (STRUCTURED, chunk(1, 0, data(0, 65)), (0, 0), "fault", "fault"),
    "data without bytes": (STRUCTURED, chunk(1, 0, data(0, 0)), (0, 0), "fault", "fault"),
    "list of extents without end": (
        STRUCTURED,
        chunk(5, 2, bytes(40))[:16] + b"\xff\xff\xff\xff" + bytes(40),
        (0, 0),
        "fault",
        "fault",
    ),
    "error without end": (STRUCTURED, chunk(0x8001, 0)[:16] + b"\0\0\xff\xff" + bytes(40), (0, 0), "fault", "fault"),
    # The gate passes these on, for they end where they say; a client must not believe them.
    "data elsewhere": (STRUCTURED, chunk(1, 0, data(1, 64)), (0, 0), "fault", "good"),
    "data before the range": (STRUCTURED, chunk(1, 0, data(-1, 1)), (0, 0), "fault", "good"),
    "hole elsewhere": (STRUCTURED, chunk(2, 0, struct.pack(">QI", 4096, 65)), (0, 0), "fault", "good"),
    "half of the data, and done": (STRUCTURED, chunk(1, 0, data(0, 32)), (0, 0), "fault", "good"),
    "no data, and done": (STRUCTURED, chunk(0, 0), (0, 0), "fault", "good"),
    "the same data twice": (STRUCTURED, 2 * chunk(1, 0, data(0, 32), 0), (0, 0), "fault", "good"),
    "error that is none": (STRUCTURED, chunk(0x8001, 0, bytes(6)), (0, 0), "fault", "good"),
    "error whose text is longer than it": (
        STRUCTURED,
        chunk(0x8001, 0, struct.pack(">IH", EIO, 9)),
        (0, 0),
        "fault",
        "good",
    ),
    "flags of the future": (STRUCTURED, chunk(1, 0, data(0, 64), 3), (0, 0), "fault", "good"),
    "chunk of the future": (STRUCTURED, chunk(99, 0, b"?"), (0, 0), "fault", "good"),
    "context that was not agreed": (STRUCTURED, chunk(5, 2, struct.pack(">III", 7, 64, 3)), (0, 0), "fault", "good"),
    "extents that end in the middle": (STRUCTURED, chunk(5, 2, bytes(11)), (0, 0), "fault", "good"),
    "count of extents that is wrong": (
        EXTENDED,
        chunk(6, 2, struct.pack(">IIQQ", 0, 2, 64, 3), long=True),
        (0, 0),
        "fault",
        "good",
    ),
    "about another offset": (EXTENDED, chunk(1, 0, data(0, 64), offset=0, long=True), (0, 0), "fault", "good"),
}
