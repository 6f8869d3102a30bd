"""Versions, and the threads that wait for another one."""

import itertools
import threading

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.auth.news import News

FOREVER = 1000


class Bench:
    """News under a lock, and what a thread does that looks: `looks` counts that."""

    def __init__(self):
        self.lock = threading.Lock()
        self.news = News(self.lock, itertools.count(5))
        self.looks = 0
        self.on_look = lambda: None

    def look(self):
        self.looks += 1
        self.on_look()

    def wait(self, since, seconds=DEADLINE, is_over=lambda: False):
        with self.lock:
            self.news.wait_change(since, seconds, self.look, is_over)

    def change(self):
        with self.lock:
            self.news.note_change()


@pytest.fixture
def bench():
    return Bench()


def test_versions(bench):
    assert bench.news.version == 5
    bench.change()
    assert bench.news.version == 6


def test_lock_must_be_held(bench):
    with pytest.raises(AssertionError):
        bench.news.note_change()


def test_wait_that_is_not_wanted_any_more(bench):
    bench.wait(5, FOREVER, lambda: True)
    assert bench.news.version == 5


def test_wait_for_nothing(bench):
    bench.wait(5, 0)
    assert bench.news.version == 5
    assert bench.looks == 1


def test_wait_with_an_old_version_returns_at_once(bench):
    bench.wait(4, FOREVER)


def test_what_the_first_look_finds_is_old_without_a_version(bench):
    bench.on_look = bench.news.note_change
    bench.wait(None, 0)
    assert bench.looks == 1


def test_wait_ends_when_a_look_finds_something(bench):
    bench.on_look = bench.news.note_change
    bench.wait(5, FOREVER)
    assert bench.news.version == 6


@pytest.mark.parametrize("since", [5, None])
def test_wait_is_woken(bench, since):
    has_looked, is_woken = threading.Event(), threading.Event()
    # Called with the lock held: a change that follows finds the thread waiting.
    bench.on_look = has_looked.set

    def wait():
        bench.wait(since)
        is_woken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert has_looked.wait(DEADLINE)
    bench.change()
    assert is_woken.wait(DEADLINE)
    waiter.join(DEADLINE)
    assert bench.news.version == 6


def test_wait_for(bench):
    done = []
    with bench.lock:
        assert not bench.news.wait_for(lambda: bool(done), 0.001)
    has_looked = threading.Event()

    def is_true():
        has_looked.set()
        return bool(done)

    results = []

    def wait():
        with bench.lock:
            results.append(bench.news.wait_for(is_true, DEADLINE))

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert has_looked.wait(DEADLINE)
    with bench.lock:
        done.append(True)
        bench.news.note_change()
    waiter.join(DEADLINE)
    assert results == [True]
