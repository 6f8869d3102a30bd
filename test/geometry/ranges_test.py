"""The union of byte ranges: against a plain set of integers, and at its limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovirt_imageio.geometry import ranges
from ovirt_imageio.geometry.ranges import Ranges


@pytest.mark.parametrize(
    "added, total",
    [
        ([(0, 100), (100, 200)], 200),
        ([(100, 200), (0, 100)], 200),
        ([(0, 120), (100, 200)], 200),
        ([(0, 100), (200, 300)], 200),
        ([(0, 100), (200, 300), (80, 200)], 300),
        ([(10, 20), (10, 20)], 10),
        ([(10, 20), (0, 30)], 30),
        ([(0, 30), (10, 20)], 30),
        ([(5, 5)], 0),
        ([], 0),
    ],
)
def test_total(added, total):
    assert Ranges(added).total == total


def test_iterates_islands_in_order():
    assert list(Ranges([(200, 300), (0, 100), (90, 110)])) == [(0, 110), (200, 300)]


def test_refuses_nonsense():
    with pytest.raises(AssertionError):
        Ranges().add(2, 1)
    with pytest.raises(AssertionError):
        Ranges().add(-1, 1)


def test_offsets_of_the_largest_disk():
    end = 2**63 - 1
    assert Ranges([(0, 1), (end - 1, end)]).total == 2


@pytest.mark.parametrize("chunk", [2, 3, 1024])
@given(
    pairs=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 40))),
    asked=st.tuples(st.integers(0, 260), st.integers(0, 100)),
)
def test_equals_a_set_of_integers(chunk, pairs, asked):
    with pytest.MonkeyPatch.context() as patch:
        # Small chunks, so that few ranges split and empty many of them.
        patch.setattr(ranges, "CHUNK", chunk)
        union = Ranges()
        model: set[int] = set()
        for start, length in pairs:
            union.add(start, start + length)
            model.update(range(start, start + length))
            assert union.total == len(model)
        start, length = asked
        assert union.missing(start, start + length) == len(set(range(start, start + length)) - model)
    islands = list(union)
    assert len(islands) == len(union)
    assert {n for start, end in islands for n in range(start, end)} == model
    # Apart from each other, and in order.
    assert all(left[1] < right[0] for left, right in zip(islands, islands[1:]))


@given(pairs=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 5))), limit=st.integers(1, 5))
@settings(max_examples=50)
def test_limited_memory_never_counts_too_much(pairs, limit):
    union = Ranges(limit=limit)
    model: set[int] = set()
    for start, length in pairs:
        before = union.total
        union.add(start, start + length)
        model.update(range(start, start + length))
        assert len(union) <= limit
        assert before <= union.total <= len(model)


def test_limited_memory_counts_what_is_not_in_a_gap():
    union = Ranges(limit=2)
    for start in range(0, 100, 10):
        union.add(start, start + 5)
    assert union.total == 50


def test_many_islands_then_all_at_once():
    union = Ranges()
    for n in range(5000):
        start = (n * 7919 % 5000) * 10
        union.add(start, start + 5)
    assert (len(union), union.total) == (5000, 25000)
    union.add(0, 50000)
    assert list(union) == [(0, 50000)]
    assert union.total == 50000
