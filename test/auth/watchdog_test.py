"""What asked for attention is looked after until it wants none; failures end nothing."""

import threading

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.auth.watchdog import Watchdog

NEVER = 3600


class Attended:
    """Wants attention for so many looks, and writes down what happened."""

    def __init__(self, diary, name, looks=1):
        self.diary = diary
        self.name = name
        self.left = looks

    def tick(self):
        self.diary.append(self.name)
        self.left -= 1
        return self.left > 0


@pytest.fixture
def diary():
    return []


@pytest.fixture
def watchdog(diary):
    return Watchdog(lambda: diary.append("around"), NEVER)


def test_until_it_wants_no_attention(watchdog, diary):
    watchdog.look()
    watchdog.attend(Attended(diary, "a", looks=2))
    for _ in range(4):
        watchdog.look()
    assert diary == ["around", "around", "a", "around", "a", "around", "around"]


def test_again(watchdog, diary):
    attended = Attended(diary, "a")
    watchdog.attend(attended)
    watchdog.look()
    watchdog.attend(attended)
    watchdog.look()
    assert diary == ["around", "a", "around", "a"]


def test_one_that_asks_twice_is_asked_once(watchdog, diary):
    attended = Attended(diary, "a", looks=2)
    watchdog.attend(attended)
    watchdog.attend(attended)
    watchdog.look()
    assert diary == ["around", "a"]


def test_what_asks_amid_a_look_is_looked_after_at_the_next_one(watchdog, diary):
    class Asking(Attended):
        def tick(self):
            watchdog.attend(Attended(diary, "b"))
            return super().tick()

    watchdog.attend(Asking(diary, "a"))
    watchdog.look()
    assert diary == ["around", "a"]
    watchdog.look()
    assert diary == ["around", "a", "around", "b"]


def test_thread_looks_and_survives_errors(caplog):
    looked = threading.Semaphore(0)

    def fail():
        looked.release()
        raise ZeroDivisionError

    watchdog = Watchdog(fail, 0.01)
    watchdog.start()
    assert looked.acquire(timeout=DEADLINE)
    assert looked.acquire(timeout=DEADLINE)
    watchdog.stop()
    assert "The watchdog failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_one_that_fails_keeps_none_from_its_turn(watchdog, diary, caplog):
    class Failing(Attended):
        def tick(self):
            super().tick()
            raise ZeroDivisionError

    failing = [Failing(diary, "bad") for _ in range(5)]
    for attended in (*failing, Attended(diary, "good"), *failing):
        watchdog.attend(attended)
    watchdog.look()
    assert sorted(diary) == ["around", *["bad"] * 5, "good"]
    assert "The watchdog failed" in caplog.text
    # What failed is looked after once more, and what wants no attention is not.
    diary.clear()
    watchdog.look()
    assert sorted(diary) == ["around", *["bad"] * 5]


def test_stop(watchdog, diary):
    """It is told, and not only noticed at the next look."""
    watchdog.start()
    watchdog.stop()
    watchdog.stop()
    assert diary == []
