"""Progress: the exact lines of the bar, and what may be passed instead of one."""

from __future__ import annotations

import io
import json

import pytest
from fakes.clock import FakeClock

from ovirt_imageio import errors
from ovirt_imageio.client.progress import ProgressBar, ProgressCounter, Reporter, Route


def lines(output: io.StringIO) -> list[str]:
    return output.getvalue().replace("\r", "\n").splitlines()


def test_text():
    output, clock = io.StringIO(), FakeClock()
    bar = ProgressBar(phase="setting up", output=output, now=clock)
    clock.advance(1.1)
    bar.size = 6 * 512 * 1024**2
    bar.phase = "downloading image"
    bar.update(512 * 1024**2)
    clock.advance(1)
    bar.close()
    assert lines(output) == [
        "[ ---- ] 0 bytes, 0.00 s, 0 bytes/s | setting up".ljust(79),
        "[   0% ] 0 bytes, 1.10 s, 0 bytes/s | setting up".ljust(79),
        "[   0% ] 0 bytes, 1.10 s, 0 bytes/s | downloading image".ljust(79),
        "[  16% ] 512.00 MiB, 1.10 s, 465.45 MiB/s | downloading image".ljust(79),
        "[  16% ] 512.00 MiB, 2.10 s, 243.81 MiB/s | downloading image".ljust(79),
    ]
    assert output.getvalue().count("\r") == 4
    assert output.getvalue().endswith("\n")


def test_json():
    output, clock = io.StringIO(), FakeClock()
    bar = ProgressBar(format="json", output=output, now=clock)
    clock.advance(2)
    bar.size = 100
    bar.phase = "uploading image"
    bar.update(50)
    bar.close()
    assert [json.loads(line) for line in lines(output)] == [
        {"transferred": 0, "elapsed": 0, "description": ""},
        {"transferred": 0, "elapsed": 2, "description": "", "size": 100},
        {"transferred": 0, "elapsed": 2, "description": "uploading image", "size": 100},
        *[{"transferred": 50, "elapsed": 2, "description": "uploading image", "size": 100}] * 2,
    ]
    assert list(json.loads(lines(output)[1])) == ["transferred", "elapsed", "description", "size"]


def test_draws_only_when_the_percentage_grows():
    output = io.StringIO()
    bar = ProgressBar(size=100_000, output=output)
    for _ in range(100_000):
        bar.update(1)
    assert 100 <= len(lines(output)) <= 102


def test_same_phase_and_size_draw_nothing():
    output = io.StringIO()
    bar = ProgressBar(phase="a", size=1, output=output)
    bar.phase = "a"
    bar.size = 1
    assert len(lines(output)) == 1


def test_nothing_after_close():
    output = io.StringIO()
    bar = ProgressBar(size=10, output=output)
    bar.close()
    before = output.getvalue()
    bar.update(5)
    bar.phase = "late"
    bar.size = 5
    bar.close()
    assert output.getvalue() == before
    assert (bar.phase, bar.size) == (None, 10)


def test_failure_ends_with_its_own_phase():
    output = io.StringIO()
    with pytest.raises(ZeroDivisionError), ProgressBar(phase="copying", output=output):
        raise ZeroDivisionError
    assert lines(output)[-1].rstrip().endswith("| command failed")


def test_no_phase_is_none():
    output = io.StringIO()
    bar = ProgressBar(output=output)
    assert bar.phase is None
    bar.phase = "copying"
    bar.phase = None
    assert bar.phase is None
    assert lines(output)[-1].rstrip() == "[ ---- ] 0 bytes, 0.00 s, 0 bytes/s"


def test_counter_shows_nothing(capsys):
    with ProgressCounter("phase") as counter:
        counter.size = 10
        counter.update(5)
        counter.phase = "end"
    with pytest.raises(ZeroDivisionError), ProgressCounter("phase"):
        raise ZeroDivisionError
    assert capsys.readouterr() == ("", "")


def test_wrong_format():
    with pytest.raises(errors.InvalidValue):
        ProgressBar(format="xml")


def test_callable_gets_counts():
    counts: list[int] = []
    reporter = Reporter(counts.append)
    reporter.begin(10)
    reporter.update(3)
    reporter.update(0)
    assert counts == [3]


def test_object_gets_size_and_counts_though_it_is_false():
    class Falsy:
        def __init__(self) -> None:
            self.size = None
            self.counts: list[int] = []

        def __bool__(self) -> bool:
            return False

        def update(self, count: int) -> None:
            self.counts.append(count)

    target = Falsy()
    reporter = Reporter(target)
    reporter.begin(10)
    reporter.update(3)
    assert (target.size, target.counts) == (10, [3])


def test_anything_else_is_refused():
    with pytest.raises(errors.InvalidValue, match="progress"):
        Reporter(17)


@pytest.mark.parametrize(
    ("route", "text"),
    [
        (Route("unix", "nbd", False, "full"), "full, by NBD over a Unix socket"),
        (Route("tls", "http", False, "incremental", "memory"), "incremental, by HTTP over TLS"),
        (Route("tls", "http", True, "full", None), "full, by HTTP over TLS, through the proxy"),
        (Route("tls", "nbd", False, "full", "kernel"), "full, by NBD over TLS by the kernel of the server"),
        (Route("tls", "http", False, "full", "kernel-send"), "full, by HTTP over TLS by the kernel of the server"),
    ],
)
def test_route(route, text):
    assert str(route) == text
