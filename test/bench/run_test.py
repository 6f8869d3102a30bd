"""The lines as a whole: each has a name of its own, and what is said about a line is said about one that exists."""

from __future__ import annotations

import collections

from bench import path_lines, run


def test_names_are_unique():
    names = collections.Counter(line.name for module in run.MODULES for line in module.LINES)
    assert [name for name, count in names.items() if count > 1] == []


def test_targets_are_for_lines_that_exist():
    names = {line.name for line in path_lines.LINES}
    assert set(path_lines.TARGETS) <= names
    assert set(path_lines.OTHERS) <= names


def test_other_sides_of_targets_exist():
    for module in run.MODULES:
        for line in module.LINES:
            assert {target.side for target in line.targets} <= {side.name for side in line.sides[1:]}, line.name


def test_unknown_name_lists_the_known(capsys):
    assert run.main(["no-such-line"]) == 2
    assert "get-nbd-memory-unix-1" in capsys.readouterr().err
