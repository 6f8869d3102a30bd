"""The words for what moves."""

import pytest

from ovirt_imageio.terminal import traffic


@pytest.mark.parametrize(
    ("comes", "goes", "word"), [(True, False, "in"), (False, True, "out"), (True, True, "both"), (False, False, "out")]
)
def test_direction(comes, goes, word):
    assert traffic.direction(comes=comes, goes=goes) == word


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes/s"), (1536.0, "1.50 KiB/s"), (310 * 2**20, "310.00 MiB/s")])
def test_rate(count, text):
    assert traffic.rate(count) == text
