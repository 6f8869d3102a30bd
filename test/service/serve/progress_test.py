"""Progress is one line on a terminal, and few lines elsewhere."""

import io

import pytest

from ovirt_imageio.service.serve.progress import PLAIN_INTERVAL, Traffic, TrafficDisplay

MiB = 1024**2

IDLE = [{"active": False, "rate": 0, "connections": 0}]
ACTIVE = [{"active": True, "rate": MiB, "connections": 1}, {"active": False, "rate": 0, "connections": 2}]


@pytest.fixture
def traffic():
    return Traffic()


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def say(stream):
    return lambda text, end: stream.write(text + end)


def test_traffic(traffic):
    traffic.bytes_moved("nbd", "write", 3)
    traffic.bytes_moved("nbd", "zero", 4)
    traffic.bytes_moved("nbd", "read", 5)
    assert (traffic.received, traffic.sent) == (7, 5)


def test_terminal(traffic, stream, say):
    progress = TrafficDisplay(traffic, say, width=80)
    progress.update(0, IDLE)
    progress.update(1, IDLE)
    traffic.bytes_moved("nbd", "write", 2 * MiB)
    progress.update(2, ACTIVE)
    progress.finish()
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        "received 0 bytes, sent 0 bytes, idle, connections: 0",
        "received 2.00 MiB, sent 0 bytes, 1.00 MiB/s, connections: 3\n",
    ]


def test_narrow_terminal(traffic, stream, say):
    """A line that is too long would scroll with each update."""
    TrafficDisplay(traffic, say, width=20).update(0, IDLE)
    assert stream.getvalue() == "\r\x1b[Kreceived 0 bytes, s"


def test_plain(traffic, stream, say):
    progress = TrafficDisplay(traffic, say, width=None)
    progress.update(0, IDLE)
    for second in range(1, int(PLAIN_INTERVAL) + 2):
        traffic.bytes_moved("nbd", "read", MiB)
        progress.update(second, ACTIVE)
    traffic.bytes_moved("nbd", "read", MiB)
    progress.update(60, IDLE)
    progress.update(61, IDLE)
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "received 0 bytes, sent 11.00 MiB, 1.00 MiB/s, connections: 3",
        "received 0 bytes, sent 12.00 MiB, idle, connections: 0",
    ]


def test_small_transfers_without_a_terminal(traffic, stream, say):
    """They begin and end between two looks."""
    progress = TrafficDisplay(traffic, say, width=None)
    traffic.bytes_moved("nbd", "read", MiB)
    progress.update(1, IDLE)
    traffic.bytes_moved("nbd", "write", MiB)
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "received 0 bytes, sent 1.00 MiB, idle, connections: 0",
        "received 1.00 MiB, sent 1.00 MiB",
    ]


def test_nothing_moved(traffic, stream, say):
    progress = TrafficDisplay(traffic, say, width=None)
    progress.update(0, IDLE)
    progress.finish()
    assert stream.getvalue() == ""
