"""Merging and clipping extents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent, clipped, merged


@st.composite
def contiguous(draw):
    """Extents that cover [0, n) without gaps; some may be empty."""
    start, result = 0, []
    for length, zero, hole in draw(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()))):
        result.append(ZeroExtent(start, length, zero, hole))
        start += length
    return result


def by_byte(extents):
    return {extent.start + i: extent[2:] for extent in extents for i in range(extent.length)}


@given(contiguous())
def test_merged_says_the_same_of_every_byte_with_fewer_words(extents):
    result = list(merged(extents))
    assert by_byte(result) == by_byte(extents)
    assert all(extent.length for extent in result)
    for first, second in zip(result, result[1:]):
        assert first.start + first.length == second.start
        assert first[2:] != second[2:]


@given(contiguous(), st.integers(0, 30), st.integers(0, 30))
def test_clipped_says_the_same_of_what_is_left(extents, start, end):
    expected = {offset: flags for offset, flags in by_byte(extents).items() if start <= offset < end}
    result = list(clipped(extents, start, end))
    assert by_byte(result) == expected
    assert all(extent.length for extent in result)


def test_clipped_reads_no_further_than_it_must():
    extents = iter([ZeroExtent(start, 1, True, False) for start in range(4)])
    assert len(list(clipped(extents, 0, 2))) == 2
    assert next(extents).start == 3


def test_a_gap_keeps_extents_apart():
    apart = [ZeroExtent(0, 1, True, False), ZeroExtent(2, 1, True, False)]
    assert list(merged(apart)) == apart


def test_data_is_what_must_be_read():
    assert ZeroExtent(0, 1, False, False).data
    assert not ZeroExtent(0, 1, True, True).data
    assert DirtyExtent(0, 1, True, False).data
    assert not DirtyExtent(0, 1, True, True).data
