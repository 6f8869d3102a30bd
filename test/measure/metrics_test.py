"""Counters, gauges and histograms, and how they read."""

import math
import threading

import pytest

from ovirt_imageio.measure.metrics import Registry, sample


@pytest.fixture
def registry():
    return Registry()


def lines(registry):
    text = registry.render()
    assert text.endswith("\n")
    return text.splitlines()


def test_counter(registry):
    counter = registry.counter("things_total", "Things.")
    assert lines(registry) == ["# HELP things_total Things.", "# TYPE things_total counter", "things_total 0"]
    counter.add()
    counter.add(count=2**60)
    assert counter.value() == 2**60 + 1
    assert lines(registry)[-1] == f"things_total {2**60 + 1}"


def test_counter_with_labels(registry):
    counter = registry.counter("things_total", "Things.", "kind", "size")
    assert len(lines(registry)) == 2
    counter.add("b", "1")
    counter.add("a", "2", count=0.5)
    assert counter.value("c", "3") == 0
    assert lines(registry)[2:] == ['things_total{kind="a",size="2"} 0.5', 'things_total{kind="b",size="1"} 1']


def test_wrong_labels(registry):
    with pytest.raises(AssertionError):
        registry.counter("things_total", "Things.", "kind").add()


def test_gauge(registry):
    values = {("a",): 1}
    registry.gauge("level", "Level.", lambda: values, "where")
    assert lines(registry) == ["# HELP level Level.", "# TYPE level gauge", 'level{where="a"} 1']
    values[("b",)] = -2.25
    assert lines(registry)[2:] == ['level{where="a"} 1', 'level{where="b"} -2.25']


def test_counted_elsewhere(registry):
    registry.counted("seconds_total", "Seconds.", lambda: 1.5)
    assert lines(registry)[1:] == ["# TYPE seconds_total counter", "seconds_total 1.5"]


def test_histogram(registry):
    histogram = registry.histogram("seconds", "Seconds.", (0.1, 1), "route")
    for value in (0.05, 0.1, 0.5, 2, 3):
        histogram.observe("/", value=value)
    assert lines(registry) == [
        "# HELP seconds Seconds.",
        "# TYPE seconds histogram",
        'seconds_bucket{route="/",le="0.1"} 2',
        'seconds_bucket{route="/",le="1"} 3',
        'seconds_bucket{route="/",le="+Inf"} 5',
        'seconds_sum{route="/"} 5.65',
        'seconds_count{route="/"} 5',
    ]


@pytest.mark.parametrize(
    "value, text", [('say "hi"', r"say \"hi\""), ("a\nb", r"a\nb"), ("a\\b", r"a\\b"), ("(.*)", "(.*)")]
)
def test_escapes(value, text):
    assert sample("x", ["label"], [value], 1) == f'x{{label="{text}"}} 1'


def test_numbers():
    assert sample("x", [], [], math.pi) == f"x {math.pi!r}"
    assert sample("x", [], [], 3.0) == "x 3"


def test_threads(registry):
    counter = registry.counter("things_total", "Things.", "kind")
    histogram = registry.histogram("seconds", "Seconds.", (1,))

    def work():
        for _ in range(2000):
            counter.add("a")
            histogram.observe(value=0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value("a") == 8000
    assert lines(registry)[-1] == "seconds_count 8000"
