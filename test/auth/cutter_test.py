"""What is cut, when, and why."""

import logging

import pytest
from fakes.connections import FakeBackend, FakeConnection, Steps

from ovirt_imageio import errors
from ovirt_imageio.auth.cutter import STALLED_SECONDS, STOPPED, Cutter
from ovirt_imageio.auth.links import Links, Running


class Bench:
    """Operations that do not run on the links of a transfer."""

    def __init__(self):
        self.links = Links()
        self.cutter = Cutter(self.links, "transfer-1")

    def add(self, name="read", now=0, is_finishing=False):
        link = self.links.add(FakeConnection())
        link.is_in_use = True
        link.backend = FakeBackend()
        running = Running(Steps(link.connection, name=name), link, now)
        running.operation._is_finishing = is_finishing
        self.links.running.add(running)
        return running


@pytest.fixture
def bench():
    return Bench()


def is_cut(*runs):
    return [running.cut_reason is not None for running in runs]


def is_interrupted(*runs):
    return [running.link.connection.is_aborted for running in runs]


def test_canceled(bench, caplog):
    caplog.set_level(logging.INFO)
    runs = bench.add("read"), bench.add("write"), bench.add("checksum"), bench.add("write", is_finishing=True)
    bench.cutter.end_grace(10)
    bench.cutter.cut_canceled(5)
    assert is_cut(*runs) == [True, False, True, False]
    # A download cannot be told any more; what was asked to end gets time, however often it is canceled.
    bench.cutter.cut_canceled(6)
    assert is_interrupted(*runs) == [True, False, False, False]
    assert "CUT transfer=transfer-1 connection=" in caplog.text
    assert caplog.text.count("its ticket was canceled") == 2


def test_end_of_the_grace(bench):
    write, finishing = bench.add("write"), bench.add("write", is_finishing=True)
    bench.cutter.end_grace(10)
    bench.cutter.end_grace(20)
    bench.cutter.cut_canceled_again(9)
    assert is_cut(write, finishing) == [False, False]
    bench.cutter.cut_canceled_again(10)
    assert (is_cut(write, finishing), is_interrupted(write)) == ([True, False], [False])
    bench.cutter.cut_canceled_again(11)
    assert is_interrupted(write, finishing) == [True, False]


def test_requests_without_operation_are_interrupted(bench):
    link = bench.links.add(FakeConnection())
    link.is_in_use = True
    bench.cutter.end_grace(0)
    bench.cutter.cut_canceled_again(0)
    link.backend = FakeBackend()
    bench.cutter.cut_canceled_again(0)
    assert link.backend.interrupted == 1


@pytest.mark.parametrize(
    "cut, reason",
    [
        (lambda cutter: cutter.cut_canceled(0), "its ticket was canceled"),
        (lambda cutter: cutter.cut_canceled_again(0, STOPPED), "the service stops"),
        (lambda cutter: cutter.cut_expired(), "it stood still until its ticket expired"),
        (lambda cutter: cutter.cut_ended(), "its ticket has ended"),
    ],
)
def test_openings_are_cut(bench, cut, reason, caplog):
    """The log tells of it once."""
    caplog.set_level(logging.INFO)
    link = bench.links.add(FakeConnection())
    line = bench.links.begin_opening(link, 0)
    expected = f"CUT transfer=transfer-1 connection={link.connection.id}: opening the disk: {reason}"
    for _ in range(2):
        cut(bench.cutter)
        assert line.is_cut
        assert [record.getMessage() for record in caplog.records] == [expected]


def test_ended(bench):
    """Requests that move bytes may come to their end."""
    moving, endless = bench.add("write"), bench.add("write")
    endless.operation.is_endless = True
    bench.cutter.cut_ended()
    assert [running.cut_reason for running in (moving, endless)] == [None, "its ticket has ended"]


def test_expired(bench):
    runs = bench.add("read"), bench.add("write")
    bench.cutter.cut_expired()
    assert [running.cut_reason for running in runs] == ["it stood still until its ticket expired"] * 2


def test_the_longest_stall_makes_room(bench):
    old, older, young = (bench.add("write", now) for now in (2, 1, 3))
    bench.cutter.make_room(STALLED_SECONDS + 2, 3)
    assert is_interrupted(old, older, young) == [False, True, False]
    bench.cutter.make_room(STALLED_SECONDS + 2, 3)
    assert is_interrupted(old, older, young) == [True, True, False]
    with pytest.raises(errors.TooManyConnections, match="limit of 3 connections"):
        bench.cutter.make_room(STALLED_SECONDS + 2, 3)


def test_clients_that_have_left_make_room_first(bench):
    """Each of them once: its thread may take its time to close the connection."""
    stalled, left, waiting = bench.add(now=0), bench.add(now=1), bench.add(now=1)
    for running in (left, waiting):
        bench.links.running.discard(running)
        running.link.is_in_use = False
    left.link.connection.is_left = True
    bench.cutter.make_room(STALLED_SECONDS, 3)
    assert is_interrupted(stalled, left, waiting) == [False, True, False]
    bench.cutter.make_room(STALLED_SECONDS, 3)
    assert is_interrupted(stalled, left, waiting) == [True, True, False]
    with pytest.raises(errors.TooManyConnections):
        bench.cutter.make_room(STALLED_SECONDS, 3)
