"""The checker accepts what is possible, and refuses what is not."""

from __future__ import annotations

import random
import threading

import pytest
from history.checker import NEVER, TORN, History, decode, encode

# w VALUE BEGIN END, a VALUE BEGIN UNTIL, r VALUE BEGIN END, f BEGIN END, c WHEN; "-" is never.
POSSIBLE = {
    "nothing was written": "r 0 1 2",
    "what was written": "w 7 1 2, r 7 3 4",
    "before a write ends, either": "w 7 1 9, r 0 2 3, r 7 4 5",
    "a read that overlaps a write": "w 7 2 4, r 0 1 3, r 7 1 3",
    "of two writes at once either is the last": "w 7 1 5, w 8 2 6, r 7 7 8",
    "... and the same for the next one": "w 7 1 5, w 8 2 6, r 8 7 8",
    "what was not acknowledged may be there": "w 7 1 -, r 7 5 6",
    "... or not": "w 7 1 -, r 0 5 6",
    "... or come late": "w 7 1 -, w 8 2 3, r 8 4 5, r 7 6 7",
    "what has ended unknown may be there": "w 7 1 2, a 8 3 4, r 8 5 6",
    "... or not at all": "w 7 1 2, a 8 3 4, r 7 5 6",
    "zeroes": "w 7 1 2, w 0 3 4, r 0 5 6",
    "a crash loses what was not flushed": "w 7 1 2, c 3, r 0 4 5",
    "... or does not": "w 7 1 2, c 3, r 7 4 5",
    "... also what was written while the flush ran": "w 7 1 3, f 2 4, c 5, r 0 6 7",
    "... and by a flush that ended too late": "w 7 1 2, f 3 6, c 5, r 0 7 8",
    "an older one comes back, as the newer ones are lost": "w 7 1 2, f 3 4, w 8 5 6, w 9 7 8, c 9, r 8 10 11",
    "what was written after the crash": "c 1, w 7 2 3, r 7 4 5",
}

WRONG = {
    "a write is lost": "w 7 1 2, r 0 3 4",
    "an older one comes back": "w 7 1 2, w 8 3 4, r 7 5 6",
    "what was never written": "w 7 1 2, r 9 3 4",
    "from the future": "r 7 1 2, w 7 3 4",
    "torn": f"w 7 1 2, r {TORN} 3 4",
    "zeroes that were written over": "w 0 1 2, w 7 3 4, r 0 5 6",
    "data that was zeroed": "w 7 1 2, w 0 3 4, r 7 5 6",
    "first the new, then the old": "w 7 1 9, r 7 2 3, r 0 4 5",
    "... of what was never acknowledged": "w 7 1 -, r 7 2 3, r 0 4 5",
    "what has ended unknown comes late": "a 7 1 2, w 8 3 4, r 7 5 6",
    "... or comes and goes": "w 7 1 2, a 8 3 4, r 8 5 6, r 7 7 8",
    "a crash loses what was flushed": "w 7 1 2, f 3 4, c 5, r 0 6 7",
    "... and brings back what is older": "w 7 1 2, w 8 3 4, f 5 6, c 7, r 7 8 9",
    "... and loses what was written after it": "c 1, w 7 2 3, r 0 4 5",
    "one that began after the other had ended": "w 7 1 5, w 8 2 3, w 9 6 7, r 8 8 9",
}


def history(text: str) -> History:
    found = History()
    for line in text.split(", "):
        kind, *words = line.split()
        numbers = [NEVER if word == "-" else float(word) for word in words]
        if kind == "w":
            found.write([3], int(numbers[0]), *numbers[1:])
        elif kind == "a":
            found.attempt([3], int(numbers[0]), *numbers[1:])
        elif kind == "r":
            found.read(3, int(numbers[0]), *numbers[1:])
        elif kind == "f":
            found.flush(*numbers)
        else:
            found.crash(*numbers)
    return found


@pytest.mark.parametrize("text", POSSIBLE.values(), ids=POSSIBLE)
def test_possible(text):
    assert list(history(text).faults()) == []


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_wrong(text):
    (fault,) = history(text).faults()
    assert fault.startswith("block 3: ")


def test_blocks_are_apart():
    found = History()
    found.write([0, 1], 7, 1, 2)
    found.write([1], 8, 3, 4)
    for block, value in enumerate((7, 8, 0)):
        found.read(block, value, 5, 6)
    assert not list(found.faults())


def test_values():
    data = encode(7, 2) + bytes(512) + encode(8)
    assert decode(data) == [7, 7, 0, 8]
    assert decode(data[:511] + b"x" + data[512:]) == [TORN, 7, 0, 8]


@pytest.mark.parametrize("seed", range(20))
def test_a_register_is_accepted_and_one_that_forgets_is_not(seed):
    """Registers that real threads use; a lie in one of the reads is found."""
    dice = random.Random(seed)
    found, lock, times = History(), threading.Lock(), iter(range(10**6))
    register = [0]

    def now() -> int:
        with lock:
            return next(times)

    def use(number: int) -> None:
        for value in range(number * 100 + 1, number * 100 + 30):
            begin = now()
            if dice.random() < 0.5:
                register[0] = value
                end = now()
                with lock:
                    found.write([0], value, begin, end)
            else:
                seen = register[0]
                end = now()
                with lock:
                    found.read(0, seen, begin, end)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not list(found.faults())
    found.write([0], 1000, now(), now())
    found.read(0, register[0], now(), now())
    assert len(list(found.faults())) == 1
