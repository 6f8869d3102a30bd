"""Counters, gauges and histograms, and the text that Prometheus reads.

These are our own lines and not the prometheus-client library: we need three kinds of samples and one text format, about
as much code as it takes to wrap the library; it would be the first dependency that every host must install, and
it brings a global registry, a WSGI server and multi-process files that are not needed here.

https://prometheus.io/docs/instrumenting/exposition_formats/. Knows nothing of what is counted.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Union

__all__ = ["CONTENT_TYPE", "Counter", "Gauge", "Histogram", "Registry"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# The values of labels, in the order of their names.
Labels = tuple[str, ...]

ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Counter:
    """Something that only grows.

    Threads: any number at once.
    """

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.text = text
        self._labels = tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, *labels: str, count: float = 1) -> None:
        """Count something with these values of the labels."""
        assert len(labels) == len(self._labels), labels
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + count

    def value(self, *labels: str) -> float:
        """Return the count of these values of the labels."""
        with self._lock:
            return self._values.get(labels, 0)

    def samples(self) -> Iterator[str]:
        """Yield a line for each value."""
        with self._lock:
            values = sorted(self._values.items())
        for labels, value in values:
            yield sample(self.name, self._labels, labels, value)


class Gauge:
    """Something that goes up and down: `read` is asked for it, by values of the labels, when the metrics are read.

    Threads: any number at once, if `read` can stand it.
    """

    kind = "gauge"

    def __init__(
        self, name: str, text: str, read: Callable[[], Mapping[Labels, float]], labels: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.text = text
        self._labels = tuple(labels)
        self._read = read

    def samples(self) -> Iterator[str]:
        """Yield a line for each value."""
        for labels, value in sorted(self._read().items()):
            yield sample(self.name, self._labels, labels, value)


class CounterGauge(Gauge):
    """Something that only grows, but is counted elsewhere."""

    kind = "counter"


class Histogram:
    """How often something took how long.

    Threads: any number at once.
    """

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        assert list(bounds) == sorted(bounds)
        self.name = name
        self.text = text
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._lock = threading.Lock()
        # By labels: how many in each bucket, the last one for what is above all bounds; and the sum.
        self._buckets: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, *labels: str, value: float) -> None:
        """Count an event that took `value`."""
        assert len(labels) == len(self._labels), labels
        bucket = bisect.bisect_left(self._bounds, value)
        with self._lock:
            buckets = self._buckets.get(labels)
            if buckets is None:
                buckets = self._buckets[labels] = [0] * (len(self._bounds) + 1)
            buckets[bucket] += 1
            self._sums[labels] = self._sums.get(labels, 0) + value

    def samples(self) -> Iterator[str]:
        """Yield the lines of each histogram: its buckets, which include those below, its sum and its count."""
        with self._lock:
            rows = [(labels, buckets[:], self._sums[labels]) for labels, buckets in sorted(self._buckets.items())]
        for labels, buckets, total in rows:
            count = 0
            for bound, number in zip((*self._bounds, "+Inf"), buckets):
                count += number
                yield sample(f"{self.name}_bucket", (*self._labels, "le"), (*labels, str(bound)), count)
            yield sample(f"{self.name}_sum", self._labels, labels, total)
            yield sample(f"{self.name}_count", self._labels, labels, count)


Family = Union[Counter, Gauge, Histogram]


class Registry:
    """All that is measured, in the order in which it was added.

    Threads: render any; add one.
    """

    def __init__(self) -> None:
        self._families: list[Family] = []

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Add a counter."""
        counter = Counter(name, text, labels)
        self._families.append(counter)
        return counter

    def gauge(self, name: str, text: str, read: Callable[[], Mapping[Labels, float]], *labels: str) -> None:
        """Add a gauge."""
        self._families.append(Gauge(name, text, read, labels))

    def counted(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a counter that is counted elsewhere."""
        self._families.append(CounterGauge(name, text, lambda: {(): read()}))

    def histogram(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> Histogram:
        """Add a histogram."""
        histogram = Histogram(name, text, bounds, labels)
        self._families.append(histogram)
        return histogram

    def render(self) -> str:
        """Return all of it as text."""
        lines = []
        for family in self._families:
            lines.append(f"# HELP {family.name} {family.text}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines.extend(family.samples())
        return "\n".join(lines) + "\n"


def sample(name: str, names: Sequence[str], values: Sequence[str], number: float) -> str:
    """Return one line.

    >>> sample("requests_total", ["method"], ["GET"], 3)
    'requests_total{method="GET"} 3'
    """
    pairs = ",".join(f'{key}="{value.translate(ESCAPES)}"' for key, value in zip(names, values))
    labels = f"{{{pairs}}}" if pairs else ""
    # Whole numbers in full: a float has no more than 15 digits, and counters of bytes do.
    text = str(int(number)) if number == int(number) else repr(number)
    return f"{name}{labels} {text}"
