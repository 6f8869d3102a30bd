"""What is under way to a server that is far follows what the connection moves; to one that is near it stays."""

from __future__ import annotations

import pytest

from ovirt_imageio.client.copy.reach import FAR, FAR_COPY, MAX_WINDOW, MIB, NEAR, Window, reach


@pytest.mark.parametrize("round_trip", [0, 0.0002, FAR - 0.001])
def test_near(round_trip):
    assert reach(round_trip) == NEAR


@pytest.mark.parametrize(("round_trip", "seconds"), [(FAR, 0.25), (0.1, 0.3), (1, 3)])
def test_far(round_trip, seconds):
    far = reach(round_trip)
    assert far.seconds == pytest.approx(seconds)
    assert far.connections > NEAR.connections
    # At least two pieces are in a window.
    assert 2 * far.max_copy <= far.window
    assert 2 * far.max_copy <= far.nbd_window


def test_one_request_at_a_time_is_a_long_one():
    far = reach(0.1, can_pipeline=False)
    assert far.connections > NEAR.connections
    assert far.max_copy > reach(0.1).max_copy
    assert far.max_gap > reach(0.1).max_gap


def window(start=4000, least=1000, seconds=0.6):
    made = Window(start, least, seconds)
    made.begin(0)
    return made


@pytest.mark.parametrize("round_trip", [1e10, float("inf")])
def test_very_far(round_trip):
    made = window(seconds=reach(round_trip).seconds)
    made.ended(1, 1)
    assert made.size == MAX_WINDOW


def test_window_is_what_moves_in_these_seconds():
    made = window()
    assert made.size == 4000
    made.ended(1000, now=0.1)
    assert made.size == 6000
    # The window follows the last round trip, a third of that time: the first task is not in it any more.
    for number in range(2, 12):
        made.ended(3000, now=number / 10)
    assert made.size == pytest.approx(18_000, 0.01)
    made.ended(10**12, now=1.2)
    assert made.size == MAX_WINDOW


def test_window_of_a_slow_connection():
    """Bytes that wait behind a slow connection are missed in the end, when others have none left."""
    made = window()
    # Slow start is not over: it may still become faster.
    made.ended(500, now=1.5)
    assert made.size == 4000
    made.ended(1500, now=2.5)
    assert made.size == 1000
    # Each of these took longer than a round trip.
    made.ended(3000, now=3.5)
    assert made.size == 1800
    made.ended(3000, now=3.9)
    assert made.size == pytest.approx(4500, 0.01)


def test_a_pause_is_not_slow():
    made = window()
    for number in range(1, 31):
        made.ended(1000, now=number / 10)
    made.begin(100)
    made.ended(1000, now=100.1)
    assert made.size == pytest.approx(6000, 0.01)


def test_a_clock_that_did_not_move():
    made = window()
    made.ended(1000, now=0)
    assert made.size == 4000


def test_window_of_a_server_that_is_near_stays():
    made = window(NEAR.window, NEAR.least, NEAR.seconds)
    made.ended(10**12, 1)
    assert made.size == NEAR.window


def test_pieces_for_a_server_that_is_near_are_never_cut():
    for near in (NEAR, reach(1, can_pipeline=False)):
        assert near.longest(near.window) >= near.max_copy


def test_pieces_of_a_slow_connection():
    far = reach(0.1)
    # Two are under way.
    assert 2 * far.min_copy <= far.least
    assert far.longest(far.least) == far.min_copy
    assert far.longest(far.window) == 2 * far.min_copy
    # The blocks of a disk are not cut.
    assert far.longest(MAX_WINDOW - 1) % far.min_copy == 0
    assert far.longest(MAX_WINDOW - 1) > far.max_copy


@pytest.mark.parametrize(
    ("size", "count"), [(None, 1), (0, 1), (1, 1), (FAR_COPY, 1), (FAR_COPY + 1, 2), (2 * FAR_COPY, 2)]
)
def test_as_many_connections_as_there_can_be_pieces(size, count):
    assert reach(0.1).pieces(size) == count


@pytest.mark.parametrize(
    ("size", "distance", "length"),
    [
        (0, 0, 4),
        (10, 0, 4),
        (64, 0, 4),
        (65, 0, 5),
        (80, 0, 5),
        (81, 0, 6),
        (1023, 0, 64),
        (10**6, 0, 64),
        (80, 0.1, 0.25),
    ],
)
def test_small_disks_have_pieces_for_all_workers(size, distance, length):
    assert reach(distance).share_of(size * MIB, 4) == length * MIB
