"""Pauses and bandwidth, with a clock of our own."""

from __future__ import annotations

import threading

import pytest
from fakes.clock import FakeClock
from fakes.waiting import DEADLINE

from ovirt_imageio import errors
from ovirt_imageio.client.copy.pace import MAX_BACKOFF, Throttle, backoff


def test_pauses_double_up_to_a_limit():
    assert list(backoff(4, dice=lambda: 1)) == [0.25, 0.5, 1, 2]
    assert max(backoff(100, dice=lambda: 1)) == MAX_BACKOFF
    assert list(backoff(0)) == []


def test_pauses_differ():
    assert next(backoff(1, dice=lambda: 0)) == 0.125


def test_bandwidth():
    clock = FakeClock(0)
    throttle = Throttle(100, now=clock, wait=clock.advance)
    for _ in range(20):
        throttle.take(50)
    assert clock.now == pytest.approx(10, abs=0.3)


def test_idle_time_is_not_caught_up():
    clock = FakeClock(0)
    throttle = Throttle(100, now=clock, wait=clock.advance)
    clock.advance(1000)
    for _ in range(20):
        throttle.take(50)
    assert clock.now == pytest.approx(1010, abs=0.3)


def test_without_limit_nobody_waits():
    waits: list[float] = []
    Throttle(None, wait=waits.append).take(10**15)
    assert waits == []


def test_stop_wakes():
    throttle = Throttle(1)
    thread = threading.Thread(target=throttle.take, args=(10**9,))
    thread.start()
    throttle.stop()
    thread.join(DEADLINE)
    assert not thread.is_alive()


@pytest.mark.parametrize("bandwidth", [0, -1])
def test_wrong_bandwidth(bandwidth):
    with pytest.raises(errors.InvalidValue, match="bandwidth"):
        Throttle(bandwidth)
