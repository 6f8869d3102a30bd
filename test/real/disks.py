"""What real disks begin with."""

from __future__ import annotations

import struct
import uuid
import zlib

__all__ = ["gpt"]


def gpt(size: int, *parts: tuple[str, int, int]) -> bytes:
    """Return the beginning of a disk with a GPT partition table: names, first and last sectors."""
    kind = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", kind, uuid.uuid4().bytes_le, first, last, 0, name.encode("utf-16-le"))
        for name, first, last in parts
    ).ljust(128 * 128, b"\0")
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, size // 512 - 1, 34, size // 512 - 34,
        uuid.uuid4().bytes_le, 2, 128, 128, zlib.crc32(entries),
    )  # fmt: skip
    protective = bytes(446) + struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, size // 512 - 1)
    return protective.ljust(510, b"\0") + b"\x55\xaa" + head.ljust(512, b"\0") + entries
