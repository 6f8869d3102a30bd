"""The words for what moves, the same wherever people see it: `ovirt-imageio serve` and `ovirt-imageioctl`.

Pure: text from numbers.
"""

from __future__ import annotations

from ovirt_imageio import units
from ovirt_imageio.errors import printable

__all__ = ["client_line", "direction", "rate"]


def direction(*, comes: bool, goes: bool) -> str:
    """Return where bytes go, as this service sees it: uploads come in, downloads go out.

    >>> direction(comes=True, goes=False), direction(comes=True, goes=True)
    ('in', 'both')
    """
    if comes and goes:
        return "both"
    return "in" if comes else "out"


def client_line(address: str, protocol: str, received: int, sent: int, speed: float) -> str:
    """Return what a client does, in the order in which a narrow terminal needs it.

    >>> client_line("192.0.2.7", "http", 0, 5 * 2**30, 310 * 2**20)
    '192.0.2.7  out  HTTP  310.00 MiB/s  5.00 GiB'
    """
    way = direction(comes=received > 0, goes=sent > 0)
    return "  ".join([printable(address), way, protocol.upper(), rate(speed), units.size(received + sent)])


def rate(count: float) -> str:
    """Return a number of bytes per second.

    >>> rate(2**20)
    '1.00 MiB/s'
    """
    return f"{units.size(count)}/s"
