"""Writes that no flush has made safe."""

import pytest

from ovirt_imageio import errors
from ovirt_imageio.backends.writes import UnflushedWrites


@pytest.fixture
def writes():
    return UnflushedWrites()


def assert_refused(writes):
    with pytest.raises(errors.StorageError, match="write again what was written"):
        writes.check()


def test_nothing_was_written(writes):
    writes.note_break()
    assert not writes.is_lost
    writes.check()


def test_written_and_safe(writes):
    writes.note_write()
    writes.check()
    writes.note_flush()
    writes.note_break()
    assert not writes.is_lost
    writes.check()


def test_flush_fails_until_something_is_written_again(writes):
    writes.note_write()
    writes.note_break()
    assert writes.is_lost
    assert_refused(writes)
    # A layer in between may repeat a flush that failed: that brings nothing back.
    assert_refused(writes)
    assert not writes.is_lost
    writes.note_write()
    writes.check()


def test_writes_of_a_client_that_was_not_told_change_nothing(writes):
    writes.note_write()
    writes.note_break()
    writes.note_write()
    assert writes.is_lost
    assert_refused(writes)


def test_nothing_was_acknowledged(writes):
    assert writes.is_empty
    writes.note_write()
    assert not writes.is_empty
    writes.note_break()
    assert not writes.is_empty
    writes.forget()
    assert writes.is_empty
    writes.check()


def test_another_one_tells(writes):
    writes.note_write()
    assert not writes.pass_on_loss()
    writes.note_break()
    assert writes.pass_on_loss()
    assert not writes.pass_on_loss()
    assert not writes.is_lost
    writes.check()
    # What the client was told is not told once more, and its flush fails as before.
    writes.note_write()
    writes.note_break()
    assert_refused(writes)
    assert not writes.pass_on_loss()
    assert_refused(writes)


def test_lost_twice(writes):
    writes.note_write()
    writes.note_break()
    assert_refused(writes)
    writes.note_write()
    writes.note_break()
    assert writes.is_lost
    assert_refused(writes)
