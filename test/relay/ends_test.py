"""The smallest interface between a body and a disk."""

from __future__ import annotations

from backends.contract import Bytes

from ovirt_imageio import relay


def test_fill():
    view = memoryview(bytearray(10))
    assert relay.fill(Bytes(b"123456789012345", step=3), view) == 10
    assert bytes(view) == b"1234567890"
    assert relay.fill(Bytes(b"12345"), view) == 5
    assert relay.fill(Bytes(b""), view) == 0
    assert relay.fill(Bytes(b"12345"), view[:0]) == 0


# The worker
