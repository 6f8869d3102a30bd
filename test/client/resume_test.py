"""State files: what survives, what is not trusted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.client.copy.plan import COPY, Task
from ovirt_imageio.client.resume import Journal, State, decode, encode, is_same, samples
from ovirt_imageio.geometry.ranges import Ranges

TRANSFER = {"direction": "upload", "size": 100}


def task(start: int, length: int) -> Task:
    return Task(COPY, start, length, ((start, length),))


def test_round_trip():
    state = State(TRANSFER, Ranges([(0, 10), (20, 30)]))
    again = decode(encode(state))
    assert (again.transfer, list(again.done)) == (TRANSFER, [(0, 10), (20, 30)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        json.dumps({"version": 2, "transfer": {}, "done": []}).encode(),
        json.dumps({"version": 1, "transfer": [], "done": []}).encode(),
        json.dumps({"version": 1, "transfer": {}, "done": [[0, 10], [5, 20]]}).encode(),
        json.dumps({"version": 1, "transfer": {}, "done": [[10, 10]]}).encode(),
        json.dumps({"version": 1, "transfer": {}, "done": [["0", 10]]}).encode(),
        json.dumps({"version": 1, "transfer": {}, "done": [7]}).encode(),
        json.dumps({"version": 1, "transfer": {}, "done": [[0, 2**63]]}).encode(),
        json.dumps({"version": 1, "transfer": {}, "done": [[0, True]]}).encode(),
        b'{"version": 1, "transfer": {}, "done": [[0, 1e400]]}',
        b'{"version": 1, "transfer": {}, "done": [[0, 1%s]]}' % (b"0" * 5000),
        b'{"version": 1, "transfer": {}, "done": %s}' % (b"[" * 100_000),
        json.dumps({"version": 1, "transfer": {}, "done": [[0, True]]}).encode(),
        json.dumps({"version": 1, "transfer": {}, "done": [[0, 2**63]]}).encode(),
        b'{"version": 1, "transfer": {}, "done": [[0, %s]]}' % (b"9" * 5000),
        b"[" * 100_000,
        b'{"version": 1, "transfer": {}, "done": ' + b"[" * 100_000,
    ],
)
def test_damaged_state(data):
    with pytest.raises(errors.InvalidValue):
        decode(data)


@given(st.lists(st.integers(1, 10**6), max_size=20), st.integers(1, 20), st.integers(1, 10**5))
def test_samples_are_within_what_is_done(steps, count, size):
    done, position = [], 0
    for number, step in enumerate(steps):
        if number % 2:
            done.append((position, position + step))
        position += step
    found = list(samples(done, count, size))
    assert len(found) <= count
    assert bool(found) == bool(done)
    for offset, length in found:
        assert 0 < length <= size
        assert any(start <= offset and offset + length <= end for start, end in done)
    if done and count > 1:
        assert found[0][0] <= done[0][0]
        assert sum(found[-1]) == done[-1][1]


def test_is_same():
    here, there = bytearray(b"a" * 1000), bytearray(b"a" * 1000)
    there[600] = 0
    assert is_same([(0, 600)], MemoryBackend(here), MemoryBackend(there))
    assert not is_same([(0, 601)], MemoryBackend(here), MemoryBackend(there))


def test_is_same_beyond_the_end():
    assert is_same([(0, 20)], MemoryBackend(b"a" * 10), MemoryBackend(b"a" * 10 + bytes(10)))


def test_journal(tmp_path):
    path = str(tmp_path / "state")
    journal = Journal(path, TRANSFER)
    journal.load()
    assert journal.done == []
    journal.record([task(10, 10), task(0, 10), task(50, 5)])
    again = Journal(path, TRANSFER)
    again.load()
    assert again.done == [(0, 20), (50, 55)]
    again.remove()
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_state_of_another_transfer_is_of_no_use(tmp_path):
    path = str(tmp_path / "state")
    Journal(path, TRANSFER).record([task(0, 10)])
    other = Journal(path, {**TRANSFER, "size": 99})
    other.load()
    assert other.done == []


def test_damaged_file_is_of_no_use(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"{")
    journal = Journal(str(path), TRANSFER)
    journal.load()
    assert journal.done == []


@pytest.mark.parametrize("content", [b"[" * 100_000, encode(State(TRANSFER, Ranges([(0, 101)])))])
def test_file_that_makes_no_sense_is_of_no_use(tmp_path, content, caplog):
    path = tmp_path / "state"
    path.write_bytes(content)
    journal = Journal(str(path), TRANSFER)
    journal.load()
    assert journal.done == []
    assert "Starting over" in caplog.text


def test_failed_save_leaves_nothing(tmp_path):
    # Nothing can replace a folder that is not empty.
    path = tmp_path / "state"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(errors.StorageError, match=r"Storage failed to write .*state"):
        Journal(str(path), TRANSFER).begin()
    assert [item.name for item in tmp_path.iterdir()] == ["state"]


def test_forget(tmp_path):
    path = tmp_path / "state"
    journal = Journal(str(path), TRANSFER)
    journal.record([task(0, 10)])
    journal.forget()
    assert journal.done == []
    assert not path.exists()


def test_begin_marks(tmp_path):
    path = tmp_path / "state"
    Journal(str(path), TRANSFER).begin()
    assert decode(path.read_bytes()).transfer == TRANSFER


def test_folder_that_is_gone(tmp_path):
    with pytest.raises(errors.StorageError, match="state"):
        Journal(str(tmp_path / "gone" / "state"), TRANSFER).begin()


def test_failed_save_leaves_nothing_behind(tmp_path):
    path = tmp_path / "state"
    path.mkdir()
    with pytest.raises(errors.StorageError, match="state"):
        Journal(str(path), TRANSFER).begin()
    assert list(tmp_path.iterdir()) == [path]
