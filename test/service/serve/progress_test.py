"""Progress is one line on a terminal, and few lines elsewhere."""

import io

import pytest

from ovirt_imageio.service.serve.progress import PLAIN_INTERVAL, Progress, Traffic

MiB = 1024**2


@pytest.fixture
def traffic():
    return Traffic()


def test_traffic(traffic):
    traffic.bytes_moved("nbd", "write", 3)
    traffic.bytes_moved("nbd", "zero", 4)
    traffic.bytes_moved("nbd", "read", 5)
    assert (traffic.received, traffic.sent) == (7, 5)


def test_terminal(traffic):
    stream = io.StringIO()
    progress = Progress(stream, is_live=True)
    progress.update(0, traffic, 0, 0, is_active=False)
    progress.update(1, traffic, 0, 0, is_active=False)
    traffic.bytes_moved("nbd", "write", 2 * MiB)
    progress.update(2, traffic, MiB, 1, is_active=True)
    progress.finish()
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        "received 0 bytes, sent 0 bytes, idle, connections: 0",
        "received 2.00 MiB, sent 0 bytes, 1.00 MiB/s, connections: 1\n",
    ]


def test_plain(traffic):
    stream = io.StringIO()
    progress = Progress(stream, is_live=False)
    progress.update(0, traffic, 0, 0, is_active=False)
    for second in range(1, int(PLAIN_INTERVAL) + 2):
        traffic.bytes_moved("nbd", "read", MiB)
        progress.update(second, traffic, MiB, 1, is_active=True)
    progress.update(60, traffic, MiB, 1, is_active=False)
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "received 0 bytes, sent 1.00 MiB, 1.00 MiB/s, connections: 1",
        "received 0 bytes, sent 11.00 MiB, 1.00 MiB/s, connections: 1",
        "received 0 bytes, sent 11.00 MiB, idle, connections: 1",
    ]
