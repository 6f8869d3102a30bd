"""What is written about a run, from scripted results."""

from __future__ import annotations

import json
import xml.dom.minidom

import pytest
from bench import report
from bench.lines import Line, Result, Times
from tools.source import ROOT

AIMS = [Times(2), Times(0.5, cpu_of="daemon"), Times(1, "nginx")]
FAST = Line("get-fast", "MiB/s", [], about="a | b", targets=AIMS, gib=0.5)
SLOW = Line("list", "s", [], less_is_better=True, targets=[Times(0.5)])
ALONE = Line("alone", "s", [], 10, True)


@pytest.fixture
def records():
    cpu = {"daemon": [0.5, 0.5, 0.5]}
    fast = [
        Result("ours", [3000.0, 1000.0, 9000.0], cpu),
        Result("release", [1000.0], {"daemon": [2.0]}),
        Result("nginx", [], missing="no <network>"),
    ]
    slow = [Result("ours", [3.0]), Result("release", [4.0])]
    return [
        report.record(FAST, fast),
        report.record(SLOW, slow),
        report.record(ALONE, [Result("ours", [0.001])]),
    ]


def test_record_is_all_there_is(records):
    fast = json.loads(json.dumps(records[0]))
    ours, release, nginx = fast["sides"]
    assert (ours["median"], ours["samples"]) == (3000, [3000, 1000, 9000])
    assert (ours["cpu"], release["cpu"]) == ({"daemon": 0.5}, {"daemon": 2})
    assert nginx == {"side": "nginx", "missing": "no <network>"}
    assert fast["cpu_per_gib"] == {"ours": 1, "release": 4}
    assert fast["ratios"] == {"release": 3}
    assert [(target["reached"], target["good"]) for target in fast["targets"]] == [
        (3, True),
        (0.25, True),
        (None, False),
    ]


def test_targets(records):
    lines = report.targets(records).splitlines()
    assert len(lines) == 5
    assert lines[0].split() == ["get-fast", ">=", "2", "x", "release", "3.00", "ok"]
    assert lines[2].endswith("not measured")
    assert lines[3].split()[-2:] == ["0.75", "MISSED"]
    assert report.targets([]) == "  none"


def test_table_has_a_row_for_each_line(records):
    rows = report.table(report.run(records)).split("|---|\n")[-1].splitlines()
    assert [row.count("|") for row in rows] == [8, 8, 8]
    assert rows[0].startswith("| get-fast | a / b | 3,000 MiB/s | release 1,000 | 3.00 | daemon 0.50 | daemon 2.00 |")


def test_table_begins_with_what_a_gib_costs(records):
    records[0]["cpu_per_gib"]["nginx"] = 0.8
    rows = report.table(report.run(records)).split("|---|\n")[1].split("\n\n")[0].splitlines()
    assert rows == ["| get-fast | 1.000 | 4.000 | 0.25 | 0.800 | 1.25 |"]


@pytest.mark.parametrize(
    "costs, row",
    [
        ({"ours": 1.0}, "| get-fast | 1.000 |  |  |  |  |"),
        ({"ours": 1.0, "nginx": 2.0}, "| get-fast | 1.000 |  |  | 2.000 | 0.50 |"),
        ({"release": 1.0}, "| get-fast |  | 1.000 |  |  |  |"),
    ],
)
def test_cost_of_a_side_that_is_missing(costs, row):
    assert report.cost_row({"name": "get-fast", "cpu_per_gib": costs}) == row


def test_table_has_a_row_for_each_target_and_those_that_were_missed_come_first(records):
    rows = report.table(report.run(records)).split("|---|\n")[2].split("\n\n")[0].splitlines()
    assert rows == [
        "| get-fast | >= 1 x nginx | not measured | **no** | 3,000 MiB/s | 1,000 MiB/s |",
        "| list | <= 0.5 x release | 0.75 | **no** | 3.00 s | 4.00 s |",
        "| get-fast | >= 2 x release | 3.00 | yes | 3,000 MiB/s | 1,000 MiB/s |",
        "| get-fast | CPU of daemon <= 0.5 x release | 0.25 | yes | 3,000 MiB/s | 1,000 MiB/s |",
        "| alone | <= 10 s | 0.001 | yes | 0.001 s |  |",
    ]


def test_plot_shows_what_was_compared(records):
    drawing = report.plot(records)
    document = xml.dom.minidom.parseString(drawing)
    words = [node.firstChild.data for node in document.getElementsByTagName("text")]
    # Seconds are turned round: more is better for every bar.
    assert words[2:] == ["get-fast, CPU", "4.00", "get-fast", "3.00", "list", "1.33"]
    bars = document.getElementsByTagName("rect")[1:]
    assert [int(bar.getAttribute("width")) for bar in bars] == [report.x(4), report.x(3), report.x(4 / 3)]
    assert bars[1].getAttribute("fill") != bars[2].getAttribute("fill")


def test_plot_cuts_what_is_long():
    assert report.x(1000) == report.x(report.MOST) == report.WIDTH


@pytest.mark.parametrize("index, what, wanted", [(0, "", 2), (0, "CPU of daemon ", 2), (1, "", 2), (2, "", 0)])
def test_wanted(records, index, what, wanted):
    assert report.wanted(records[index], what) == wanted


def test_document(tmp_path, records):
    report.document(tmp_path / "docs", report.run(records))
    names = ["headline.svg", "ratios.svg", "results.json", "results.md"]
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == names
    assert len(json.loads((tmp_path / "docs" / "results.json").read_text())["lines"]) == 3


def test_save_makes_the_folder(tmp_path):
    path = report.save(tmp_path / "new" / "file.json", {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("value, text", [(1234.5, "1,234"), (12.34, "12.3"), (1.234, "1.23"), (0.0042, "0.004")])
def test_number(value, text):
    assert report.number(value) == text


def test_headline_has_its_lines():
    drawing = (ROOT / "docs" / "performance" / "headline.svg").read_text()
    assert all(f">{name}<" in drawing for name in report.HEADLINE)
