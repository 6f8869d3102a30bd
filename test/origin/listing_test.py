"""Listings of extents: good ones, old ones, and those that make no sense."""

from __future__ import annotations

import contextlib

import pytest

from ovirt_imageio import errors
from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.origin.listing import read_extents


class FakeReply(contextlib.nullcontext):
    """A reply with a body; tells whether it was left."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__()
        self._chunks = chunks
        self.is_left = False

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.is_left = True

    def chunks(self):
        return iter(self._chunks)


def read(text, context="zero"):
    return list(read_extents(FakeReply(text.encode()), context))


def test_zero():
    text = '[{"start": 0, "length": 10, "zero": true, "hole": false}, {"start": 10, "length": 5, "zero": false}]'
    assert read(text) == [ZeroExtent(0, 10, True, False), ZeroExtent(10, 5, False, False)]


def test_dirty():
    text = '[{"start": 0, "length": 10, "dirty": true, "zero": true}, {"start": 10, "length": 5, "dirty": false}]'
    assert read(text, "dirty") == [DirtyExtent(0, 10, True, True), DirtyExtent(10, 5, False, False)]


def test_unknown_keys_are_ignored():
    assert read('[{"start": 0, "length": 10, "zero": true, "hole": true, "new": 7}]') == [ZeroExtent(0, 10, True, True)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"start": 0, "length": 10}]',
        '[{"start": 0, "zero": true}]',
        '[{"start": -1, "length": 10, "zero": true}]',
        '[{"start": 0, "length": -1, "zero": true}]',
        '[{"start": "0", "length": 10, "zero": true}]',
        '[{"start": 0, "length": 1.5, "zero": true}]',
        '[{"start": true, "length": 10, "zero": true}]',
        '[{"start": 0, "length": 10, "zero": true}, {"start": 11, "length": 10, "zero": true}]',
        '[{"start": 0, "length": 10, "zero": true}, {"start": 9, "length": 10, "zero": true}]',
        '[{"start": 0, "length": 10, "zero": true}',
    ],
)
def test_malformed(text):
    reply = FakeReply(text.encode())
    with pytest.raises(errors.StorageError, match="malformed"):
        list(read_extents(reply, "zero"))
    assert reply.is_left


def test_wrong_kind():
    with pytest.raises(errors.StorageError):
        read('[{"start": 0, "length": 10, "zero": true}]', "dirty")


def test_left_when_no_more_is_wanted():
    reply = FakeReply(b'[{"start": 0, "length": 10, "zero": true}, {"start": 10, "length": 10, "zero": true}]')
    extents = read_extents(reply, "zero")
    next(extents)
    extents.close()
    assert reply.is_left
