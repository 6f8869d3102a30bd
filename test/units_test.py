"""Sizes and times as people read them."""

import pytest

from ovirt_imageio import units


@pytest.mark.parametrize(
    "count, text",
    [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (6 * units.MiB, "6.00 MiB"),
        (units.MiB - 1, "1.00 MiB"),
        (5 * units.GiB, "5.00 GiB"),
        (2 * units.TiB, "2.00 TiB"),
        (3 * 1024 * units.TiB, "3.00 PiB"),
        (2**63 - 1, "8192.00 PiB"),
        (0.4, "0 bytes"),
        (1023.7, "1.00 KiB"),
    ],
)
def test_size(count, text):
    assert units.size(count) == text


@pytest.mark.parametrize(
    "seconds, text",
    [(0, "0s"), (-3, "0s"), (7.9, "7s"), (60, "1m00s"), (125, "2m05s"), (3600, "1h00m"), (90000, "1d01h")],
)
def test_duration(seconds, text):
    assert units.duration(seconds) == text
