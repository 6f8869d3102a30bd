"""Who does what: lines that change on a terminal, and few lines elsewhere."""

import io

import pytest

from ovirt_imageio.service.serve.progress import MAX_CLIENTS, PLAIN_INTERVAL, Traffic, TrafficDisplay

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
    traffic.client_moved("192.0.2.7", "read", "write", 3)
    traffic.client_moved("192.0.2.7", "read", "zero", 4)
    traffic.client_moved("192.0.2.7", "read", "read", 5)
    assert (traffic.received, traffic.sent) == (7, 5)


def test_terminal(traffic, stream, say):
    progress = TrafficDisplay(traffic, say, size=(80, 24))
    progress.update(0, IDLE)
    progress.update(1, IDLE)
    traffic.client_moved("192.0.2.7", "read", "write", 2 * MiB)
    progress.update(2, ACTIVE)
    progress.finish()
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        "received 0 bytes, sent 0 bytes, idle, connections: 0",
        "received 2.00 MiB, sent 0 bytes, 1.00 MiB/s, connections: 3\n",
    ]


def test_narrow_terminal(traffic, stream, say):
    """A line that is too long would scroll with each update."""
    TrafficDisplay(traffic, say, size=(20, 24)).update(0, IDLE)
    assert stream.getvalue() == "\r\x1b[Kreceived 0 bytes, s"


def test_plain(traffic, stream, say):
    progress = TrafficDisplay(traffic, say, size=None)
    progress.update(0, IDLE)
    for second in range(1, int(PLAIN_INTERVAL) + 2):
        traffic.client_moved("192.0.2.7", "read", "read", MiB)
        progress.update(second, ACTIVE)
    traffic.client_moved("192.0.2.7", "read", "read", MiB)
    progress.update(60, IDLE)
    progress.update(61, IDLE)
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "received 0 bytes, sent 11.00 MiB, 1.00 MiB/s, connections: 3",
        "  192.0.2.7  out  HTTP  1.00 MiB/s  11.00 MiB",
        "received 0 bytes, sent 12.00 MiB, idle, connections: 0",
        "  192.0.2.7  out  HTTP  0 bytes/s  12.00 MiB",
    ]


def test_small_transfers_without_a_terminal(traffic, stream, say):
    """They begin and end between two looks."""
    progress = TrafficDisplay(traffic, say, size=None)
    traffic.client_moved("192.0.2.7", "read", "read", MiB)
    progress.update(1, IDLE)
    traffic.client_moved("192.0.2.7", "read", "write", MiB)
    progress.finish()
    assert stream.getvalue().splitlines() == [
        "received 0 bytes, sent 1.00 MiB, idle, connections: 0",
        "  192.0.2.7  out  HTTP  0 bytes/s  1.00 MiB",
        "received 1.00 MiB, sent 1.00 MiB",
        "  192.0.2.7  both  HTTP  0 bytes/s  2.00 MiB",
    ]


def test_nothing_moved(traffic, stream, say):
    progress = TrafficDisplay(traffic, say, size=None)
    progress.update(0, IDLE)
    progress.finish()
    assert stream.getvalue() == ""


def test_clients_on_a_terminal(traffic, stream, say):
    """Those that move something are below the line; what went is cleared."""
    progress = TrafficDisplay(traffic, say, size=(80, 24))
    traffic.client_moved("192.0.2.7", "write", "write", MiB)
    progress.update(0, ACTIVE)
    traffic.client_moved("192.0.2.7", "write", "zero", MiB)
    traffic.client_moved("local", "nbd", "read", 2 * MiB)
    progress.update(1, ACTIVE)
    progress.update(2, IDLE)
    progress.finish()
    assert stream.getvalue().split("\n") == [
        "\r\x1b[Kreceived 1.00 MiB, sent 0 bytes, 1.00 MiB/s, connections: 3"
        "\r\x1b[Kreceived 2.00 MiB, sent 2.00 MiB, 1.00 MiB/s, connections: 3",
        "\r\x1b[K  192.0.2.7  in  HTTP  1.00 MiB/s  2.00 MiB"
        "\x1b[1A\r\x1b[Kreceived 2.00 MiB, sent 2.00 MiB, idle, connections: 0\x1b[J",
        "",
    ]


@pytest.mark.parametrize(("height", "shown"), [(24, 11), (5, 4), (2, 1), (1, 1)])
def test_more_clients_than_lines(traffic, stream, say, height, shown):
    """A line that scrolled off the screen could not be reached any more."""
    progress = TrafficDisplay(traffic, say, size=(200, height))
    for now in (0, 1):
        for number in range(50):
            traffic.client_moved(f"192.0.2.{number}", "read", "read", MiB)
        progress.update(now, ACTIVE)
    lines = stream.getvalue().split("\n")
    assert len(lines) == shown
    if shown > 1:
        assert lines[-1].endswith(f"... {50 - shown + 2} more")


def test_addresses_are_forgotten(traffic):
    for number in range(MAX_CLIENTS + 10):
        traffic.client_moved(str(number), "read", "read", 1)
    found = traffic.clients()
    assert (len(found), found[0].address, found[-1].address) == (MAX_CLIENTS, str(MAX_CLIENTS + 9), "10")
    assert traffic.sent == MAX_CLIENTS + 10
