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
    "... or in the moment of the crash": "w 7 1 2, f 3 4, c 4, r 0 5 6",
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
    "... by a flush that began when it had ended": "w 7 1 2, f 2 3, c 4, r 0 5 6",
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


def any_history(dice: random.Random) -> str:
    """Return a history of few moments, where much happens at once; some writes are read that never began."""
    lines = []
    for value in range(1, dice.randrange(2, 14)):
        kind = dice.choice("wwwwarrrrrrrfc")
        begin = dice.randrange(12)
        end = begin + dice.randrange(5)
        if kind == "c":
            lines.append(f"c {begin}")
        elif kind == "f":
            lines.append(f"f {begin} {end}")
        elif kind == "r":
            lines.append(f"r {dice.randrange(value)} {begin} {end}")
        else:
            number = 0 if kind == "w" and dice.random() < 0.3 else value
            lines.append(f"{kind} {number} {begin} {'-' if dice.random() < 0.2 else end}")
    return ", ".join(lines)


def is_possible(text: str) -> bool:
    """The rules of the module, each looked up in all of the history: slow, and without anything that is clever."""
    # Value, begin, end, until, when it was acknowledged.
    writes = [[0, -NEVER, -NEVER, -NEVER, -NEVER]]
    reads, flushes, crashes = [], [], []
    for line in text.split(", "):
        kind, *words = line.split()
        numbers = [NEVER if word == "-" else float(word) for word in words]
        if kind == "w":
            writes.append([*numbers, numbers[2], numbers[2]])
        elif kind == "a":
            writes.append([*numbers[:2], NEVER, numbers[2], NEVER])
        else:
            {"r": reads, "f": flushes, "c": crashes}[kind].append(numbers)
    for value, _, end in reads:
        for write in writes:
            if write[0] == value != 0 and write[1] < end:
                write[2:4] = min(write[2], end), min(write[3], end)

    def holds(write, when):
        lost = [crash for (crash,) in crashes if write[1] < crash < when]
        safe = [end for begin, end in flushes if write[4] <= begin] + ([-NEVER] if write[4] == -NEVER else [])
        return not lost or (bool(safe) and min(safe) < min(lost))

    def may_be(value, begin, end):
        newest = max([write[1] for write in writes if write[2] < begin and holds(write, begin)], default=-NEVER)
        return any(write[0] == value and write[1] < end and write[3] >= newest for write in writes)

    return all(may_be(*read) for read in reads)


def test_any_history():
    """Sorting, bisecting and heaps change no verdict."""
    dice = random.Random(1)
    verdicts = []
    for _ in range(5000):
        text = any_history(dice)
        verdicts.append(not list(history(text).faults()))
        assert verdicts[-1] == is_possible(text), text
    assert min(verdicts.count(True), verdicts.count(False)) > 500


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
