"""How sides are measured in turn, and what is made of their samples; nothing here takes the time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from bench.lines import Line, Result, Side, Times, cpu_seconds
from real.release import Missing


def side(name, samples, journal=None, **options):
    """A side with scripted samples, which writes down its turns."""
    values = iter(samples)

    def run():
        if journal is not None:
            journal.append(name)
        return next(values)

    return Side(name, run, **options)


@contextlib.contextmanager
def missing():
    raise Missing("no network")
    yield


def test_sides_take_turns():
    journal = []
    line = Line("copy", "MiB/s", [side("ours", [1, 2, 3], journal), side("release", [4, 5, 6], journal)], rounds=3)
    ours, release = line.measure()
    assert journal == ["ours", "release"] * 3
    assert (ours.samples, release.samples) == ([1, 2, 3], [4, 5, 6])
    assert ours.median == 2


def test_warm_up_is_thrown_away():
    line = Line("copy", "MiB/s", [side("ours", [100, 1, 2])], rounds=2, warmups=1)
    assert line.measure()[0].samples == [1, 2]


def test_scope_holds_all_samples():
    journal = []

    @contextlib.contextmanager
    def setup():
        journal.append("start")
        yield
        journal.append("end")

    Line("copy", "MiB/s", [side("ours", [1, 2], journal, setup=setup)], rounds=2).measure()
    assert journal == ["start", "ours", "ours", "end"]


def test_line_goes_on_without_a_missing_side():
    line = Line("copy", "MiB/s", [side("ours", [1]), side("release", [], setup=missing)], targets=[Times(2)], rounds=1)
    results = line.measure()
    assert results[0].samples == [1]
    assert str(results[1]) == "release    missing: no network"
    assert list(line.ratios(results)) == []
    assert [str(check) for check in line.checks(results)] == ["target >= 2 x release: not measured"]


def test_nothing_is_said_without_us():
    line = Line(
        "copy", "MiB/s", [side("ours", [], setup=missing), side("release", [1])], 5, targets=[Times(2)], rounds=1
    )
    results = line.measure()
    assert list(line.ratios(results)) == []
    assert [check.reached for check in line.checks(results)] == [None]


def test_cpu_is_that_of_each_sample():
    line = Line("copy", "MiB/s", [side("ours", [1, 1], processes=lambda: {"me": os.getpid()})], rounds=2)
    cpu = line.measure()[0].cpu["me"]
    assert len(cpu) == 2 and all(0 <= seconds < 60 for seconds in cpu)


def test_cpu_seconds():
    before = cpu_seconds(os.getpid())
    while sum(os.times()[:2]) < before + 0.05:
        pass
    assert cpu_seconds(os.getpid()) > before


def test_cpu_seconds_of_another_process():
    code = "while __import__('time').process_time() < 0.05: pass\nprint()\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"\n"
        assert 0.05 <= cpu_seconds(process.pid) < 60
        process.stdin.write(b"\n")


OURS = Result("ours", [30.0], {"daemon": [1.0]})
RELEASE = Result("release", [10.0], {"daemon": [4.0]})
DD = Result("dd", [40.0])


@pytest.mark.parametrize(
    "target, less_is_better, reached, good",
    [
        (Times(3), False, 3, True),
        (Times(3.01), False, 3, False),
        (Times(3), True, 3, True),
        (Times(2.9), True, 3, False),
        (Times(0.7, "dd"), False, 0.75, True),
        (Times(0.8, "dd"), False, 0.75, False),
        # Less CPU is better, whatever the line measures.
        (Times(0.3, cpu_of="daemon"), False, 0.25, True),
        (Times(0.2, cpu_of="daemon"), False, 0.25, False),
        # nbdcopy was not measured; nor the CPU of a process that is not ours.
        (Times(1, "nbdcopy"), False, None, False),
        (Times(1, cpu_of="nginx"), False, None, False),
    ],
)
def test_target(target, less_is_better, reached, good):
    line = Line("copy", "MiB/s", [], less_is_better=less_is_better)
    check = target.check(line, [OURS, RELEASE, DD])
    assert (check.reached, check.is_good) == (reached, good)


@pytest.mark.parametrize("target, less_is_better, good", [(30, False, True), (31, False, False), (29, True, False)])
def test_absolute_target(target, less_is_better, good):
    line = Line("copy", "MiB/s", [], target, less_is_better)
    assert [check.is_good for check in line.checks([OURS])] == [good]


@pytest.mark.parametrize("gib, costs", [(0, []), (0.5, [("ours", 2), ("release", 8)])])
def test_cpu_per_gib(gib, costs):
    missing = Result("nginx", [], missing="no network")
    assert list(Line("copy", "MiB/s", [], gib=gib).cpu_per_gib([OURS, RELEASE, DD, missing])) == costs


def test_ratios():
    line = Line("copy", "MiB/s", [])
    assert list(line.ratios([OURS, RELEASE, DD])) == [("release", 3.0), ("dd", 0.75)]
