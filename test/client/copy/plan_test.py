"""Planning: what becomes of extents, and that nothing is lost, done twice, or too long."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from ovirt_imageio.client.copy.plan import (
    COPY,
    MAX_COPY,
    MAX_PARTS,
    MAX_ZERO,
    SKIP,
    ZERO,
    Rules,
    Task,
    cut,
    joined,
    plan,
)
from ovirt_imageio.geometry.extent import DirtyExtent, Extent, ZeroExtent

KiB = 1024
DATA = ("data", False, False)
ZEROES = ("zero", True, False)
HOLE = ("hole", True, True)


def zero_extents(*kinds: tuple[int, tuple[str, bool, bool]]) -> list[Extent]:
    extents: list[Extent] = []
    start = 0
    for length, (_, zero, hole) in kinds:
        extents.append(ZeroExtent(start, length, zero, hole))
        start += length
    return extents


def actions(tasks) -> list[tuple[str, int, int]]:
    return [(task.action, task.start, task.length) for task in tasks]


SAMPLE = zero_extents((10, DATA), (20, ZEROES), (30, HOLE), (40, DATA))


def test_full():
    assert actions(plan(SAMPLE, Rules())) == [(COPY, 0, 10), (ZERO, 10, 20), (ZERO, 30, 30), (COPY, 60, 40)]


def test_to_a_disk_that_is_zero():
    found = plan(SAMPLE, Rules(zero=False))
    assert actions(found) == [(COPY, 0, 10), (SKIP, 10, 20), (SKIP, 30, 30), (COPY, 60, 40)]


def test_one_layer():
    found = plan(SAMPLE, Rules(hole=False))
    assert actions(found) == [(COPY, 0, 10), (ZERO, 10, 20), (SKIP, 30, 30), (COPY, 60, 40)]


def test_dirty():
    extents = [
        DirtyExtent(0, 10, True, False),
        DirtyExtent(10, 10, True, True),
        DirtyExtent(20, 10, False, False),
        DirtyExtent(30, 10, False, True),
    ]
    found = plan(extents, Rules(zero=False, hole=False, dirty=True))
    assert sorted(actions(found)) == [(COPY, 0, 10), (SKIP, 20, 10), (SKIP, 30, 10), (ZERO, 10, 10)]


def test_long_ranges_are_split():
    extents = zero_extents((MAX_COPY * 2 + 1, DATA), (MAX_ZERO * 2, HOLE))
    found = list(plan(extents, Rules()))
    assert [task.action for task in found] == [COPY] * 3 + [ZERO] * 3
    assert all(task.length <= (MAX_COPY if task.action == COPY else MAX_ZERO) for task in found)


def test_copies_are_no_longer_than_wanted():
    found = plan(zero_extents((25, DATA), (1, ZEROES), (10, DATA)), Rules(max_copy=10, max_gap=5, is_gap_written=True))
    assert actions(found) == [(COPY, 0, 10), (COPY, 10, 10), (COPY, 20, 10), (COPY, 30, 6)]


def test_written_gap_becomes_part_of_the_copy():
    extents = zero_extents((10, DATA), (5, ZEROES), (10, DATA), (6, ZEROES), (10, DATA), (5, HOLE))
    found = list(plan(extents, Rules(max_gap=5, is_gap_written=True)))
    assert found == [
        Task(COPY, 0, 25, ((0, 25),)),
        Task(ZERO, 25, 6, ((25, 6),)),
        Task(COPY, 31, 10, ((31, 10),)),
        Task(ZERO, 41, 5, ((41, 5),)),
    ]


def test_hole_through_which_a_backing_file_shows_is_never_written():
    extents = zero_extents((10, DATA), (5, HOLE), (10, DATA))
    found = plan(extents, Rules(hole=False, max_gap=100, is_gap_written=True))
    assert sorted(actions(found)) == [(COPY, 0, 10), (COPY, 15, 10), (SKIP, 10, 5)]


def test_gap_that_is_only_read_is_no_part():
    extents = zero_extents((10, DATA), (5, ZEROES), (10, DATA))
    found = sorted(plan(extents, Rules(max_gap=5)))
    assert found == [Task(COPY, 0, 25, ((0, 10), (15, 10))), Task(ZERO, 10, 5, ((10, 5),))]


def test_copy_has_only_so_many_parts():
    """Else a list of single bytes would be one task that fills the memory."""
    extents = zero_extents(*[(1, DATA), (1, HOLE)] * (MAX_PARTS * 2))
    found = [task for task in plan(extents, Rules(zero=False, max_gap=64 * KiB)) if task.action == COPY]
    assert [len(task.parts) for task in found] == [MAX_PARTS] * 2


def test_what_is_done_is_skipped():
    extents = zero_extents((10, DATA), (10, ZEROES), (10, DATA))
    found = plan(extents, Rules(), done=[(5, 12), (25, 100)])
    assert actions(found) == [
        (COPY, 0, 5),
        (SKIP, 5, 5),
        (SKIP, 10, 2),
        (ZERO, 12, 8),
        (COPY, 20, 5),
        (SKIP, 25, 5),
    ]


KINDS = st.lists(st.tuples(st.integers(1, 200 * KiB), st.sampled_from([DATA, ZEROES, HOLE])), max_size=30)
RULES = st.builds(
    Rules,
    zero=st.booleans(),
    hole=st.booleans(),
    max_gap=st.sampled_from([0, 1, 64 * KiB, 10**9]),
    is_gap_written=st.booleans(),
    max_copy=st.sampled_from([64 * KiB, MAX_COPY]),
)
DONE = st.lists(st.integers(1, 300 * KiB), max_size=8)


@given(kinds=KINDS, rules=RULES, steps=DONE)
def test_every_byte_is_in_one_request_with_the_right_action(kinds, rules, steps):
    extents = zero_extents(*kinds)
    size = sum(length for length, _ in kinds)
    done, position = [], 0
    for number, step in enumerate(steps):
        if number % 2:
            done.append((position, position + step))
        position += step
    seen: list[tuple[int, int, str]] = []
    for task in plan(extents, rules, done):
        assert task.start == task.parts[0][0]
        assert task.start + task.length == sum(task.parts[-1])
        assert task.action != COPY or task.length <= rules.max_copy
        seen += [(start, start + length, task.action) for start, length in task.parts]
    seen.sort()
    position = 0
    for start, end, _ in seen:
        assert start == position < end
        position = end
    assert position == size
    for extent in extents:
        for start, end, action in seen:
            if start < extent.start + extent.length and end > extent.start:
                is_done = any(first <= max(start, extent.start) < last for first, last in done)
                wanted = SKIP if is_done else rules.action(extent)
                # Zeroes may travel as data, but data is never zeroed or left out, and what is done never touched.
                assert action == wanted or (action == COPY and extent.zero and not is_done and rules.is_gap_written)


def test_what_is_skipped_is_one_request():
    size = 8 * 1024**4
    found = list(plan([ZeroExtent(0, size, True, True)], Rules(zero=False)))
    assert actions(found) == [(SKIP, 0, size)]


@given(st.data())
def test_a_task_that_is_cut_is_the_same_bytes(data):
    gaps = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=1, max_size=6))
    parts, end = [], 100
    for gap, length in gaps:
        parts.append((end + gap, length))
        end += gap + length
    whole = Task(COPY, parts[0][0], end - parts[0][0], joined(parts))
    assume(whole.length > 1)
    length = data.draw(st.integers(1, whole.length - 1))
    halves = cut(whole, length)

    def touched(task):
        return [number for start, count in task.parts for number in range(start, start + count)]

    assert touched(halves[0]) + touched(halves[1]) == touched(whole)
    assert halves[0].length <= length
    for half in halves:
        first, last = half.parts[0], half.parts[-1]
        assert (half.action, half.start, half.start + half.length) == (COPY, first[0], last[0] + last[1])
