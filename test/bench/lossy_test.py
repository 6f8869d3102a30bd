"""A leg of the line: packets arrive in order and after their time; those are lost that should be. It needs no clock."""

from __future__ import annotations

import random

from bench.lossy import Leg, Weather

PACKET = bytes(1000)


def leg(**weather):
    return Leg(Weather(**weather), random.Random(1))


def arrive(leg, now):
    return list(leg.receive(now))


def test_a_packet_takes_half_a_round_trip():
    line = leg(round_trip=0.2, rate=1e9)
    assert line.due is None
    line.send(b"packet", now=10)
    assert 10.1 <= line.due < 10.101
    assert arrive(line, 10.099) == []
    assert arrive(line, line.due) == [b"packet"]
    assert line.due is None
    assert line.passed == 1


def test_packets_keep_their_order():
    line = leg(round_trip=0.2)
    packets = [bytes([number]) * (256 - number) for number in range(100)]
    for number, packet in enumerate(packets):
        line.send(packet, number / 1000)
    assert arrive(line, 0.12) + arrive(line, 1) == packets


def test_the_line_takes_one_packet_after_the_other():
    line = leg(round_trip=0, rate=10_000, patience=1)
    for _ in range(3):
        line.send(PACKET, now=5)
    for number in range(1, 4):
        assert arrive(line, 5 + number / 10 - 0.001) == []
        assert arrive(line, 5 + number / 10 + 0.001) == [PACKET]
    # It was idle meanwhile.
    line.send(PACKET, now=8)
    assert arrive(line, 8.101) == [PACKET]


def test_the_queue_is_bounded():
    line = leg(round_trip=0, rate=10_000, patience=0.35)
    for _ in range(10):
        line.send(PACKET, now=5)
    assert line.dropped == 6
    assert arrive(line, 6) == [PACKET] * 4


def test_losses_are_those_of_the_seed():
    def passing(share):
        line = leg(round_trip=0, loss=share)
        for number in range(10_000):
            line.send(number.to_bytes(2, "big"), now=number)
        packets = arrive(line, 20_000)
        assert len(packets) == line.passed == 10_000 - line.lost
        return packets

    some = passing(0.1)
    assert 8500 < len(some) < 9500
    assert some == sorted(some) == passing(0.1)
    assert len(passing(0)) == 10_000
    assert passing(1) == []
