"""The simulation: nothing is lost in it, and simple cases come out as they can be computed."""

from __future__ import annotations

import dataclasses

import pytest
from bench.scale_out import GIB, MIB, Plan, main, simulate

NEVER = 1e18


def test_one_transfer_alone():
    plan = Plan(transfers=1, daemons=1, rate=100 * MIB, client_rate=1000 * MIB, mean_size=GIB, window=0, mtbf=NEVER)
    outcome = simulate(plan)
    assert outcome.makespan == pytest.approx(GIB / (100 * MIB))
    assert outcome.slowdowns == [pytest.approx(1)]


def test_a_client_is_no_faster_than_it_is():
    plan = Plan(transfers=1, daemons=1, client_rate=10 * MIB, mean_size=GIB, window=0, mtbf=NEVER)
    assert simulate(plan).makespan == pytest.approx(GIB / (10 * MIB))


def test_a_daemon_is_shared():
    plan = Plan(transfers=10, daemons=1, rate=100 * MIB, client_rate=NEVER, mean_size=GIB, window=0, mtbf=NEVER)
    assert simulate(plan).makespan == pytest.approx(10 * GIB / (100 * MIB))


def test_failures_cost_little_and_lose_nothing():
    plan = Plan(transfers=200, daemons=5, mean_size=GIB, window=60, mtbf=300)
    outcome, calm = simulate(plan), simulate(dataclasses.replace(plan, mtbf=NEVER))
    assert outcome.ended == calm.ended == 200
    assert outcome.failures > calm.failures == 0
    assert 0 < outcome.sent_again <= outcome.moved * plan.piece
    assert outcome.makespan >= calm.makespan
    assert min(outcome.slowdowns) >= 0.999


def test_the_same_seed_is_the_same_run():
    plan = Plan(transfers=100, daemons=3, mtbf=600)
    assert simulate(plan).describe() == simulate(plan).describe()


def test_the_program(capsys):
    assert main(["--transfers", "20", "--daemons", "2"]) == 0
    assert "transfers that ended        20" in capsys.readouterr().out
