"""What is under way to a server grows with its distance, within limits; near servers get what they always had."""

from __future__ import annotations

import pytest

from ovirt_imageio.client.copy.reach import FAR, MAX_WINDOW, MIN_WINDOW, NEAR, RATE, reach


@pytest.mark.parametrize("round_trip", [0, 0.0002, FAR - 0.001])
def test_near(round_trip):
    assert reach(round_trip) == NEAR


@pytest.mark.parametrize(
    ("round_trip", "window"), [(FAR, MIN_WINDOW), (0.1, int(RATE * 0.1)), (1, MAX_WINDOW), (float("inf"), MAX_WINDOW)]
)
def test_far(round_trip, window):
    far = reach(round_trip)
    assert far.window == far.nbd_bytes == window
    assert far.connections > NEAR.connections
    # At least two pieces are in a window.
    assert 2 * far.max_copy <= window
