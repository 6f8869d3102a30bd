"""The words for what moves, the same wherever people see it: `ovirt-imageio serve` and `ovirt-imageioctl`.

Pure: text from numbers.
"""

from __future__ import annotations

from ovirt_imageio import units

__all__ = ["direction", "rate"]


def direction(*, comes: bool, goes: bool) -> str:
    """Return where bytes go, as this service sees it: uploads come in, downloads go out.

    >>> direction(comes=True, goes=False), direction(comes=True, goes=True)
    ('in', 'both')
    """
    if comes and goes:
        return "both"
    return "in" if comes else "out"


def rate(count: float) -> str:
    """Return a number of bytes per second.

    >>> rate(2**20)
    '1.00 MiB/s'
    """
    return f"{units.size(count)}/s"
