"""The words for what moves."""

import pytest

from ovirt_imageio.terminal import traffic


@pytest.mark.parametrize(
    ("comes", "goes", "word"), [(True, False, "in"), (False, True, "out"), (True, True, "both"), (False, False, "out")]
)
def test_direction(comes, goes, word):
    assert traffic.direction(comes=comes, goes=goes) == word


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        (("192.0.2.7", "http", 2**20, 0, 2**19), "192.0.2.7  in  HTTP  512.00 KiB/s  1.00 MiB"),
        (("local", "nbd", 2**20, 2**20, 0), "local  both  NBD  0 bytes/s  2.00 MiB"),
        (("fe80::1%\x1b[2J", "http", 0, 0, 0), "fe80::1%\ufffd[2J  out  HTTP  0 bytes/s  0 bytes"),
    ],
)
def test_client_line(counts, line):
    assert traffic.client_line(*counts) == line


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes/s"), (1536.0, "1.50 KiB/s"), (310 * 2**20, "310.00 MiB/s")])
def test_rate(count, text):
    assert traffic.rate(count) == text
