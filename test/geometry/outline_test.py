"""Where data is, kept in little: what comes out is what went in."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio.geometry.extent import DirtyExtent, ZeroExtent
from ovirt_imageio.geometry.outline import Outline

LIMIT = 1000


def data(outline):
    return [(extent.start, extent.length, extent.data) for extent in outline.extents()]


def test_neighbours_are_merged_and_holes_are_zeroes():
    extents = [
        ZeroExtent(0, 10, True, True),
        ZeroExtent(10, 10, True, False),
        ZeroExtent(20, 10, False, False),
        ZeroExtent(30, 10, False, False),
    ]
    outline = Outline(40, extents, LIMIT)
    assert list(outline.extents()) == [ZeroExtent(0, 20, True, False), ZeroExtent(20, 20, False, False)]


def test_what_is_behind_the_end_is_left_out():
    outline = Outline(30, [ZeroExtent(0, 20, True, True), ZeroExtent(20, 2**40, False, False)], LIMIT)
    assert data(outline) == [(0, 20, False), (20, 10, True)]


def test_an_empty_disk():
    outline = Outline(0, [], LIMIT)
    assert outline.is_complete
    assert data(outline) == []


def test_dirty_extents():
    assert data(Outline(10, [DirtyExtent(0, 10, False, False)], LIMIT)) == [(0, 10, True)]


def test_a_list_without_end_is_not_kept():
    taken = []

    def endless():
        for number in range(2**40):
            taken.append(number)
            yield ZeroExtent(number, 1, number % 2 == 1, False)

    outline = Outline(2**40, endless(), 10)
    assert not outline.is_complete
    assert len(taken) == 11


@given(st.lists(st.tuples(st.integers(1, 100), st.booleans(), st.booleans())))
def test_each_byte_is_what_it_was(parts):
    ends = list(accumulate((length for length, _, _ in parts), initial=0))
    extents = [ZeroExtent(start, length, zero, hole) for start, (length, zero, hole) in zip(ends, parts)]
    outline = Outline(ends[-1], extents, LIMIT)
    assert outline.is_complete
    expanded = [is_data for _, length, is_data in data(outline) for _ in range(length)]
    assert expanded == [not zero for length, zero, _ in parts for _ in range(length)]
    assert all(first[2] != second[2] for first, second in zip(data(outline), data(outline)[1:]))
