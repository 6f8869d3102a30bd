"""What is under way to a server that is far follows what the connection moves; to one that is near it stays."""

from __future__ import annotations

import pytest

from ovirt_imageio.client.copy.reach import FAR, MAX_WINDOW, NEAR, Window, reach


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


@pytest.mark.parametrize("round_trip", [1e10, float("inf")])
def test_very_far(round_trip):
    window = Window(1000, reach(round_trip).seconds)
    window.ended(1, 1)
    assert window.size == MAX_WINDOW


def test_window_is_what_moves_in_these_seconds():
    window = Window(1000, 0.5)
    assert window.size == 1000
    window.ended(ahead=4000, seconds=0.2)
    assert window.size == 10_000
    # What waits behind a slow connection is missed in the end.
    window.ended(ahead=10_000, seconds=2)
    assert window.size == 2500
    window.ended(ahead=2500, seconds=100)
    assert window.size == 1000
    window.ended(ahead=10**12, seconds=1)
    assert window.size == MAX_WINDOW
    # A clock may not have moved; zeroes move no bytes.
    window.ended(ahead=1000, seconds=0)
    window.ended(ahead=0, seconds=1)
    assert window.size == MAX_WINDOW


def test_window_of_a_server_that_is_near_stays():
    window = Window(NEAR.window, NEAR.seconds)
    window.ended(10**12, 1)
    assert window.size == NEAR.window
