"""Signals wait in a queue until they are asked for."""

import os
import signal
import threading

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.service.signals import Signals


@pytest.fixture
def signals():
    with Signals(signal.SIGUSR1, signal.SIGUSR2) as signals:
        yield signals


def send(number):
    os.kill(os.getpid(), number)


def test_none(signals):
    assert signals.wait(0) is None


def test_before_wait(signals):
    send(signal.SIGUSR1)
    assert signals.wait(DEADLINE) is signal.SIGUSR1
    assert signals.wait(0) is None


def test_several_in_order(signals):
    send(signal.SIGUSR2)
    send(signal.SIGUSR1)
    assert [signals.wait(DEADLINE), signals.wait(DEADLINE)] == [signal.SIGUSR2, signal.SIGUSR1]


def test_while_waiting(signals):
    timer = threading.Timer(0.05, send, [signal.SIGUSR1])
    timer.start()
    assert signals.wait() is signal.SIGUSR1
    timer.join()


def test_wake(signals):
    timer = threading.Timer(0.05, signals.wake)
    timer.start()
    assert signals.wait() is None
    timer.join()


def test_foreign_signal(signals):
    seen = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        send(signal.SIGALRM)
        assert signals.wait(0.01) is None
        assert seen == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_everything_is_restored():
    before = signal.getsignal(signal.SIGUSR1)
    with Signals(signal.SIGUSR1):
        assert signal.getsignal(signal.SIGUSR1) is not before
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1
