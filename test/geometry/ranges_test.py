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


@pytest.mark.parametrize(
    "added, islands",
    [
        ([(200, 300), (0, 100), (90, 110)], [(0, 110), (200, 300)]),
        # What touches is one island, also that of one byte.
        ([(0, 100), (100, 200)], [(0, 200)]),
        ([(100, 200), (0, 100)], [(0, 200)]),
        ([(0, 1), (2, 3), (1, 2)], [(0, 3)]),
        # Each end of one that covers another may be the same.
        ([(10, 20), (10, 30)], [(10, 30)]),
        ([(10, 20), (5, 20)], [(5, 20)]),
        ([(10, 20), (10, 15)], [(10, 20)]),
    ],
)
def test_iterates_islands_in_order(added, islands):
    assert list(Ranges(added)) == islands


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


@pytest.fixture(params=[2, 4])
def small_chunks(request, monkeypatch):
    monkeypatch.setattr(ranges, "CHUNK", request.param)


@pytest.mark.parametrize(
    "start, end, missing", [(0, 100, 50), (0, 5, 0), (5, 10, 5), (3, 13, 5), (13, 87, 37), (50, 50, 0), (90, 200, 105)]
)
def test_missing_in_many_chunks(small_chunks, start, end, missing):
    union = Ranges((n, n + 5) for n in range(0, 100, 10))
    assert union.missing(start, end) == missing


@pytest.mark.parametrize("start, end, missing", [(0, 5, 5), (0, 12, 10), (3, 100, 72), (0, 10, 10), (9, 11, 1)])
def test_missing_before_the_first_one(small_chunks, start, end, missing):
    assert Ranges((n, n + 5) for n in (10, 50, 90, 30, 70)).missing(start, end) == missing


@pytest.mark.parametrize("covered", [(0, 45), (10, 35), (20, 95), (60, 95), (0, 95), (50, 65)])
def test_chunks_that_become_empty(small_chunks, covered):
    """The islands of a chunk, of the first or of another one, become a part of one: the others are found as before."""
    union = Ranges((n, n + 5) for n in range(0, 100, 10))
    union.add(*covered)
    start, end = covered
    outside = [(n, n + 5) for n in range(0, 100, 10) if n >= end or n + 5 <= start]
    for island in outside:
        union.add(*island)
    assert list(union) == sorted([covered, *outside])
    for n in range(100):
        is_there = start <= n < end or n % 10 < 5
        assert union.missing(n, n + 1) == (not is_there)
    union.add(0, 100)
    assert list(union) == [(0, 100)]


@pytest.mark.parametrize(
    "added, islands, total",
    [
        # With the neighbour before it.
        ((97, 98), [(10, 15), (30, 35), (50, 55), (70, 75), (90, 98)], 26),
        ((40, 41), [(10, 15), (30, 41), (50, 55), (70, 75), (90, 95)], 26),
        # With the one behind it, where there is none before.
        ((0, 1), [(0, 15), (30, 35), (50, 55), (70, 75), (90, 95)], 26),
        # What touches one makes it longer, and joins nothing.
        ((35, 40), [(10, 15), (30, 40), (50, 55), (70, 75), (90, 95)], 30),
    ],
)
def test_island_beyond_the_limit_is_joined(small_chunks, added, islands, total):
    union = Ranges([(n, n + 5) for n in (10, 50, 90, 30, 70)], limit=5)
    union.add(*added)
    assert (list(union), union.total) == (islands, total)


def test_only_one_island_may_be_kept(small_chunks):
    union = Ranges([(50, 55), (70, 75), (0, 5)], limit=1)
    assert (list(union), union.total) == ([(0, 75)], 15)


def test_many_islands_then_all_at_once():
    union = Ranges()
    for n in range(5000):
        start = (n * 7919 % 5000) * 10
        union.add(start, start + 5)
    assert (len(union), union.total) == (5000, 25000)
    # An insertion moves the islands of one chunk, and a search looks at all chunks.
    assert max(map(len, union._starts)) <= 1024 and len(union._starts) <= 10
    union.add(0, 50000)
    assert list(union) == [(0, 50000)]
    assert union.total == 50000
