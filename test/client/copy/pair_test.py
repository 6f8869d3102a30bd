"""Two ends are opened when they are needed, and interrupted and closed together."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.client.copy.pair import Pair


class Tracked:
    """An end that notes what is asked of it."""

    def __init__(self, log, name):
        self._log = log
        self._name = name
        log.append(f"open {name}")

    def interrupt(self):
        self._log.append(f"interrupt {self._name}")

    def close(self):
        self._log.append(f"close {self._name}")


class Unclosable(Tracked):
    def close(self):
        raise errors.StorageError("close", "it was not written")


@pytest.fixture
def log():
    return []


@pytest.fixture
def pair(log):
    return Pair(lambda: Tracked(log, "local"), lambda line: Tracked(log, "remote"))


def test_opened_once(pair, log):
    pair.open_local()
    assert log == ["open local"]
    assert pair.open() == pair.open()
    assert log == ["open local", "open remote"]


def test_closed_and_opened_again(pair, log):
    pair.close()
    pair.open()
    pair.close()
    pair.close()
    assert log == ["open local", "open remote", "close local", "close remote"]
    pair.open()
    assert log[4:] == ["open local", "open remote"]


def test_interrupted(pair, log):
    pair.open()
    pair.interrupt()
    assert log[2:] == ["interrupt local", "interrupt remote"]
    with pytest.raises(errors.OperationCanceled):
        pair.open()


def test_wait_for_a_connection_is_interrupted(log):
    def connect(line):
        pair.interrupt()
        line.check()

    pair = Pair(lambda: Tracked(log, "local"), connect)
    with pytest.raises(ConnectionAbortedError):
        pair.open()
    assert log == ["open local", "interrupt local"]


@pytest.mark.parametrize("local, remote", [(Unclosable, Tracked), (Tracked, Unclosable)])
def test_both_are_closed_though_one_fails(log, local, remote):
    pair = Pair(lambda: local(log, "local"), lambda line: remote(log, "remote"))
    pair.open()
    with pytest.raises(errors.StorageError, match="it was not written"):
        pair.close()
    assert len([line for line in log if line.startswith("close")]) == 1
