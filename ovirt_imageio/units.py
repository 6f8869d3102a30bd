"""Sizes and times as people read them.

Pure: text from numbers and back, nothing else.
"""

from __future__ import annotations

import re

__all__ = ["DAY", "GiB", "KiB", "MiB", "TiB", "duration", "parse_duration", "parse_size", "size"]

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB

DAY = 86400

SECONDS = {"d": DAY, "h": 3600, "m": 60, "s": 1}

SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Return a number of bytes with the largest unit that leaves at least one of it.

    >>> size(512), size(6 * MiB)
    ('512 bytes', '6.00 MiB')
    """
    for name in SIZES[:-1]:
        # Compare what will be printed: 1023.999 KiB is 1.00 MiB, not 1024.00 KiB.
        if round(count, 0 if name == "bytes" else 2) < 1024:
            break
        count /= 1024
    else:
        name = SIZES[-1]
    return f"{count:.0f} {name}" if name == "bytes" else f"{count:.2f} {name}"


def duration(seconds: float) -> str:
    """Return a number of seconds in at most two units.

    >>> duration(7), duration(125), duration(90000)
    ('7s', '2m05s', '1d01h')
    """
    total = max(0, int(seconds))
    minutes, second = divmod(total, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    if minutes:
        return f"{minutes}m{second:02}s"
    return f"{second}s"


def parse_size(text: str) -> int:
    """Return the number of bytes that people mean: 512, 10g, 1.5 TiB. Letters stand for powers of 1024, as in qemu-img.

    Raises ValueError.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgtpe]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is not a size: expected a number and k, m, g or t, like 10g")
    number, letter = found.groups()
    factor = 1024 ** " kmgtpe".index(letter.lower() or " ")
    return int(number) * factor if number.isdigit() else int(float(number) * factor)


def parse_duration(text: str) -> int:
    """Return the number of seconds that people mean: 90, 90s, 15m, 1h, 1h30m, 2d.

    Raises ValueError.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.lower(), re.ASCII)
    if not text or found is None:
        raise ValueError(f"{text!r} is not a time: expected seconds, or numbers with d, h, m or s, like 1h30m")
    return sum(int(number or 0) * factor for number, factor in zip(found.groups(), SECONDS.values()))
