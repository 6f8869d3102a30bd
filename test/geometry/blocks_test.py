"""Alignment is arithmetic: its laws, and a few numbers that a reader can check."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.geometry import blocks

block_sizes = st.sampled_from([1, 512, 4096, 65536])
offsets = st.integers(0, 2**63)
lengths = st.integers(0, 2**40) | st.integers(0, 10000)


@given(offsets, block_sizes)
def test_rounding(n, block):
    down, up = blocks.round_down(n, block), blocks.round_up(n, block)
    assert down % block == up % block == 0
    assert down <= n <= up
    assert up - down in (0, block)


@given(offsets, lengths, block_sizes)
def test_split(offset, length, block):
    head, body, tail = blocks.split(offset, length, block)
    assert head + body + tail == length
    assert 0 <= head < max(block, 2)
    assert 0 <= tail < block
    assert body % block == 0
    assert body == 0 or (offset + head) % block == 0
    assert tail == 0 or (offset + head + body) % block == 0
    # Head and tail lie within one block each.
    if head:
        assert blocks.round_down(offset, block) == blocks.round_down(offset + head - 1, block)


@pytest.mark.parametrize(
    "offset,length,expected",
    [
        (0, 0, (0, 0, 0)),
        (0, 512, (0, 512, 0)),
        (0, 100, (0, 0, 100)),
        (100, 100, (100, 0, 0)),
        (100, 412, (412, 0, 0)),
        (100, 413, (412, 0, 1)),
        (511, 1026, (1, 1024, 1)),
    ],
)
def test_split_examples(offset, length, expected):
    assert blocks.split(offset, length, 512) == expected


@given(offsets, lengths, block_sizes)
def test_span(offset, length, block):
    start, total = blocks.span(offset, length, block)
    assert start % block == total % block == 0
    assert start <= offset
    assert offset + length <= start + total < offset + length + block
    assert offset < start + block


@given(offsets, lengths, block_sizes)
def test_shared_blocks(offset, length, block):
    shared = blocks.shared_blocks(offset, length, block)
    start, total = blocks.span(offset, length, block)
    assert len(shared) <= 2
    for place in shared:
        assert place in (start, start + total - block)
    # A range shares nothing only if it owns all of its blocks.
    assert (not shared) == (length == 0 or (start, total) == (offset, length))


@given(offsets, st.integers(0, 10**6), st.sampled_from([512, 4096, 65536]))
def test_pieces(offset, length, step):
    pieces = list(blocks.pieces(offset, length, step))
    assert sum(count for _, count in pieces) == length
    assert all(0 < count <= step for _, count in pieces)
    for (start, count), (following, _) in zip(pieces, pieces[1:]):
        assert start + count == following
        assert following % step == 0
    assert not pieces or pieces[0][0] == offset


def test_pieces_without_end():
    assert list(itertools.islice(blocks.pieces(100, None, 512), 3)) == [(100, 412), (512, 512), (1024, 512)]


def test_longest_disk():
    assert blocks.MAX_SIZE == 0x7FFF_FFFF_FFFF_FFFF
