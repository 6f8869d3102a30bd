"""Listings of extents: good ones, old ones, and those that make no sense."""

from __future__ import annotations

import contextlib
import itertools
import json

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


def read(text, context="zero", start=0, end=None):
    return list(read_extents(FakeReply(text.encode()), context, start, end))


def listed(*extents):
    """Return a list of (start, length)."""
    return json.dumps([{"start": start, "length": length, "zero": True} for start, length in extents])


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
        f'[{{"start": 0, "length": {2**63}, "zero": true}}]',
        f'[{{"start": {2**63 - 1}, "length": 1, "zero": true}}]',
        f'[{{"start": {10**3000}, "length": 1, "zero": true}}]',
        f'[{{"start": {"9" * 10_000}, "length": 1, "zero": true}}]',
        '[{"start": 1e400, "length": 1, "zero": true}]',
        '[{"start": 0, "length": 1, "zero": ' + "[" * 60_000,
        '[{"start": 0, "length": 1, "zero": ' + "[" * 30_000 + "]" * 30_000 + "}]",
    ],
)
def test_malformed(text):
    reply = FakeReply(text.encode())
    with pytest.raises(errors.StorageError, match="malformed"):
        list(read_extents(reply, "zero"))
    assert reply.is_left


@pytest.mark.parametrize(
    "extents,start,end",
    [
        ([(0, 20)], 0, 20),
        ([(0, 10), (10, 10)], 0, 20),
        # Old servers list whole disks, and disks grow.
        ([(0, 10), (10, 10)], 5, 15),
        ([(0, 10), (10, 10), (20, 10)], 0, 15),
        ([], 0, 0),
        ([(0, 0)], 0, 0),
        ([], 20, 20),
    ],
)
def test_cover(extents, start, end):
    found = read(listed(*extents), "zero", start, end)
    assert sum(extent.length for extent in found) >= end - start


@pytest.mark.parametrize(
    "extents,start,end,words",
    [
        ([], 0, 20, "ends at 0, the image at 20"),
        ([], 5, 20, "ends at 5, the image at 20"),
        ([(0, 10)], 0, 20, "ends at 10, the image at 20"),
        ([(1, 19)], 0, 20, "begins at 1, not at 0"),
        ([(10, 10)], 5, 20, "begins at 10, not at 5"),
        ([(10, 10)], 5, None, "begins at 10, not at 5"),
        ([(0, 10), (10, 0), (10, 10)], 0, 20, "the extent at 10 is empty"),
    ],
)
def test_not_covered(extents, start, end, words):
    with pytest.raises(errors.StorageError, match=words):
        read(listed(*extents), "zero", start, end)


def test_nothing_is_read_behind_the_end():
    def endless():
        yield '[{"start": 0, "length": 1, "zero": true}'
        for start in itertools.count(1):
            yield f', {{"start": {start}, "length": 1, "zero": true}}'

    reply = FakeReply()
    reply.chunks = lambda: (text.encode() for text in endless())
    assert len(list(read_extents(reply, "zero", 0, 1000))) == 1000
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
