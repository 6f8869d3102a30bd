"""Meters: what a terminal, a log and a program get, on a clock that the test moves."""

from __future__ import annotations

import io
import json
import os
import re

import pytest
from fakes.clock import FakeClock

from ovirt_imageio.client.meter import Bar, Records, compose, short_size

MIB = 1024**2
GIB = 1024**3


def drawn(stream: io.StringIO) -> list[str]:
    return [line.rstrip() for line in stream.getvalue().replace("\r", "\n").splitlines()]


@pytest.mark.parametrize("columns", range(1, 130))
def test_a_line_fits(columns):
    for percent, seconds in ((None, None), (5, 17), (100, 90061)):
        assert len(compose(columns, "downloading image", percent, 1023 * GIB, 1023 * MIB, "ETA", seconds)) <= columns


@pytest.mark.parametrize(
    "columns, line",
    [
        (19, "45% 310MiB/s 17m05s"),
        (39, "copying 45% 4.50 GiB 310MiB/s 17m05s"),
        (57, "copying   45%  4.50 GiB  310 MiB/s  ETA 17m05s"),
        (60, "copying  [####------]   45%  4.50 GiB  310 MiB/s  ETA 17m05s"),
        (79, "copying  [#############----------------]   45%  4.50 GiB  310 MiB/s  ETA 17m05s"),
    ],
)
def test_a_line_in_each_width(columns, line):
    assert compose(columns, "copying", 45, 4608 * MIB, 310.25 * MIB, "ETA", 1025) == line


@pytest.mark.parametrize(
    "count, text",
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.00 KiB"),
        (99.99 * 1024, "99.9 KiB"),
        (310.25 * MIB, "310 MiB"),
        (1023.9 * MIB, "1023 MiB"),
    ],
)
def test_short_size(count, text):
    assert short_size(count) == text


def test_bar():
    stream, clock = io.StringIO(), FakeClock()
    with Bar("copying", stream, clock) as bar:
        bar.size = 100 * MIB
        clock.advance(1)
        bar.update(10 * MIB)
        clock.advance(0.1)
        bar.update(10 * MIB)
        bar.phase = "done"
    text = [re.sub(r"\[[#-]*\]", "[bar]", line) for line in drawn(stream)]
    assert [" ".join(line.split()) for line in text] == [
        "copying 0 bytes 0 bytes/s",
        "copying [bar] 0% 0 bytes 0 bytes/s",
        "copying [bar] 10% 10.0 MiB 10.0 MiB/s ETA 9s",
        "done [bar] 20% 20.0 MiB 18.1 MiB/s ETA 4s",
        "done [bar] 20% 20.0 MiB 18.1 MiB/s in 1s",
        "",
    ]
    assert stream.getvalue().endswith("\r\n")


def test_rate_is_that_of_late():
    stream, clock = io.StringIO(), FakeClock()
    bar = Bar("copying", stream, clock)
    bar.size = 1000 * MIB
    # Zeroes, done in no time.
    clock.advance(0.5)
    bar.update(500 * MIB)
    clock.advance(1)
    bar.update(MIB)
    assert drawn(stream)[-1].endswith(" 1.00 MiB/s  ETA 8m19s")
    for _ in range(19):
        clock.advance(1)
        bar.update(MIB)
    assert "1.00 MiB/s" in drawn(stream)[-1]
    assert drawn(stream)[-1].endswith("ETA 8m00s")


def test_failure_leaves_the_line():
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), Bar("copying", stream) as bar:
        bar.size = 10
        raise ZeroDivisionError
    assert "failed" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\n")


def test_records_come_once_a_second():
    stream, clock = io.StringIO(), FakeClock()
    with Records("copying", stream, clock) as records:
        records.size = 1000 * MIB
        for _ in range(1000):
            clock.advance(0.01)
            records.update(MIB)
        records.phase = "copied"
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert 13 <= len(found) <= 15
    assert found[0] == {"type": "progress", "transferred": 0, "elapsed": 0, "description": "copying"}
    assert found[-1]["transferred"] == found[-1]["size"] == 1000 * MIB
    assert found[-1]["description"] == "copied"


def test_records_of_a_failure():
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), Records("copying", stream):
        raise ZeroDivisionError
    assert [json.loads(line)["description"] for line in stream.getvalue().splitlines()] == ["copying", "command failed"]


@pytest.mark.parametrize("kind", [Bar, Records])
def test_a_reader_that_left_does_not_end_the_transfer(kind):
    read, write = os.pipe()
    with open(write, "w") as stream:
        os.close(read)
        with kind("copying", stream) as meter:
            meter.size = 10
            meter.update(10)
            meter.phase = "copied"
        with pytest.raises(BrokenPipeError):
            stream.flush()
        # So that closing it has nothing to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
