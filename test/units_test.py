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


@pytest.mark.parametrize(
    "text, count",
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("10g", 10 * units.GiB),
        ("10G", 10 * units.GiB),
        ("6 MiB", 6 * units.MiB),
        ("64KB", 64 * units.KiB),
        (" 1.5t ", 1536 * units.GiB),
        ("8e", 8 * 1024**6),
    ],
)
def test_parse_size(text, count):
    assert units.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "g", "-1", "1x", "1.g", "0x10", "ten", "1 2", "1gg"])
def test_parse_no_size(text):
    with pytest.raises(ValueError, match="expected a number and k, m, g or t"):
        units.parse_size(text)


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("1h", 3600),
        ("1H30m", 5400),
        ("2d", 172800),
        ("1d1h1m1s", 90061),
        ("1m05s", 65),
    ],
)
def test_parse_duration(text, seconds):
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "1x", "1.5h", "1h 30m", "30m1h", "٣", "1w"])
def test_parse_no_duration(text):
    with pytest.raises(ValueError, match="like 1h30m"):
        units.parse_duration(text)
