"""The clock of a connection, and the meter of a rate."""

import pytest
from fakes.clock import FakeClock

from ovirt_imageio import units
from ovirt_imageio.measure.clock import Clock, NullClock, RateMeter


@pytest.fixture
def time():
    return FakeClock(0)


@pytest.fixture
def clock(time):
    return Clock(time)


def test_nothing(clock):
    assert str(clock) == ""


def test_ops_bytes_and_rate(clock, time):
    for _ in range(3):
        with clock.run("read") as stat:
            time.advance(0.5)
            stat.count(2 * units.MiB)
    assert str(clock) == "[read 3 ops, 1.500000 s, 6.00 MiB, 4.00 MiB/s]"


def test_without_bytes(clock, time):
    with clock.run("flush"):
        time.advance(0.25)
    assert str(clock) == "[flush 1 ops, 0.250000 s]"


def test_order_of_first_use(clock):
    with clock.run("write"), clock.run("read"):
        pass
    with clock.run("read"), clock.run("write"):
        pass
    assert str(clock) == "[write 2 ops, 0.000000 s] [read 2 ops, 0.000000 s]"


def test_error_adds_time_and_bytes_but_no_op(clock, time):
    with pytest.raises(OSError), clock.run("read") as stat:
        time.advance(1)
        stat.count(1024)
        raise OSError
    assert str(clock) == "[read 0 ops, 1.000000 s, 1.00 KiB, 1.00 KiB/s]"


def test_running_shows_all_its_time(clock, time):
    with clock.run("read"):
        time.advance(1)
    stat = clock.start("read")
    time.advance(2)
    assert stat.is_running
    assert str(clock) == "[read 1 ops, 3.000000 s]"
    assert clock.stop("read") == 3
    assert not stat.is_running
    assert str(clock) == "[read 2 ops, 3.000000 s]"


def test_too_fast_for_the_clock(clock):
    with clock.run("read") as stat:
        stat.count(1)
    assert str(clock) == "[read 1 ops, 0.000000 s, 1 bytes, 976.56 KiB/s]"


def test_start_twice(clock):
    clock.start("read")
    with pytest.raises(RuntimeError, match="read was started already"):
        clock.start("read")


def test_stop_stopped(clock):
    clock.start("read")
    clock.stop("read")
    with pytest.raises(RuntimeError, match="read was not started"):
        clock.stop("read")


def test_stop_unknown(clock):
    with pytest.raises(RuntimeError, match="read was not started"):
        clock.stop("read")


def test_null_clock():
    clock = NullClock()
    with clock.run("read") as stat:
        stat.count(1)
    clock.start("write")
    clock.stop("write")
    clock.stop("unknown")
    assert str(clock) == ""


def test_since_mark():
    now = FakeClock()
    clock = Clock(now)
    clock.start("around")
    with clock.run("before"):
        now.advance(1)
    clock.mark()
    assert clock.since_mark() == []
    with clock.run("again"):
        now.advance(2)
    clock.start("still")
    now.advance(3)
    assert clock.since_mark() == [("again", 2), ("still", 3)]
    assert clock.elapsed() == 5
    clock.mark()
    assert clock.elapsed() == 0
    with clock.run("again"):
        now.advance(4)
    assert clock.since_mark() == [("again", 4)]


def test_meter_without_samples():
    assert RateMeter().rate() == 0


def test_meter_with_one_sample():
    meter = RateMeter()
    meter.sample(10, 5)
    assert meter.rate() == 0


def test_meter_steady():
    meter = RateMeter()
    for n in range(100):
        meter.sample(n / 4, n * 100)
    assert meter.rate() == 400


def test_meter_forgets_the_past():
    meter = RateMeter()
    meter.sample(0, 0)
    meter.sample(1, 1000)
    for n in range(1, 9):
        meter.sample(1 + n, 1000)
    assert meter.rate() == 0


def test_meter_of_what_begins_late():
    """It was looked at before: the rate is that since it moves."""
    meter = RateMeter()
    for n in range(10):
        meter.sample(n / 2, 700)
    meter.sample(5, 1200)
    assert meter.rate() == 1000
    meter.sample(5.5, 1700)
    assert meter.rate() == 1000


def test_meter_looked_at_all_the_time():
    """Each rate is that of the last five seconds, however many looks fall into them."""
    meter = RateMeter()
    for n in range(20_000):
        meter.sample(n / 1000, min(n, 15_000))
        if n in (10_000, 15_000):
            assert meter.rate() == pytest.approx(1000)
        if n == 18_000:
            assert meter.rate() == pytest.approx(400, rel=0.05)
    assert meter.rate() == pytest.approx(0, abs=25)
