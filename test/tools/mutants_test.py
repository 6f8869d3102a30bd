"""The hunter of mutants finds tests that are too weak."""

from __future__ import annotations

import pytest
from tools.equivalents import EQUIVALENTS
from tools.mutants import PURE, find_mutants, hunt
from tools.source import PACKAGE

MODULE = '''
"""A module."""

LIMIT = 10


def clamp(number: int) -> int:
    if number > LIMIT:
        return LIMIT
    return number
'''

WEAK = """
from victim import clamp

def test_clamp():
    assert clamp(5) == 5
"""

STRONG = """
from victim import clamp

def test_clamp():
    assert [clamp(number) for number in (5, 10, 11)] == [5, 10, 10]
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b < c", ["Lt to LtE"]),
        ("a = b + 7", ["Add to Sub", "7 to 8", "7 to 6"]),
        ("a = b and not c", ["And to Or", "without Not"]),
        ("a = b'x'", ["b'x' to b'?'"]),
        ("a = 'text'", []),
        ("a: Literal[1] = True", ["True to False"]),
        ("if a: b()", ["turned round", "left out"]),
        ("def f(): return a, b", ["returns None", "returns them swapped"]),
        ("while a:\n    b += c\n    break", ["turned round", "left out", "Add to Sub", "left out"]),
        # The compiler makes the same of 1 << 0 and 1 >> 0.
        ("a = 1 << 0", ["1 to 2", "1 to 0", "0 to 1", "0 to -1"]),
    ],
)
def test_changes(source, expected):
    assert [mutant.change for mutant in find_mutants(source)] == expected


def test_each_mutant_has_one_fault():
    lines = {mutant.line for mutant in find_mutants(MODULE)}
    assert lines == {4, 8, 9, 10}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Hunt in the sample with a test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(test: str, explanations=None):
        (tmp_path / "victim.py").write_text(MODULE)
        (tmp_path / "victim_test.py").write_text(test)
        return hunt("victim", tmp_path / "victim.py", tmp_path / "victim_test.py", explanations or {})

    return run


def test_strong_test_notices(run):
    result = run(STRONG, {("if number > LIMIT:", "Gt to GtE"): "the result is the same"})
    assert (result.mutants, result.killed, result.explained, result.survivors) == (6, 5, 1, [])
    assert result.is_good


def test_weak_test_does_not(run):
    result = run(WEAK)
    found = [str(mutant) for mutant in result.survivors]
    assert found == [
        "4: LIMIT = 10    10 to 11",
        "4: LIMIT = 10    10 to 9",
        "8: if number > LIMIT:    Gt to GtE",
        "9: return LIMIT    returns None",
    ]
    assert not result.is_good


def test_test_that_fails_anyway(run):
    with pytest.raises(ValueError, match="fails without any mutant"):
        run(WEAK.replace("== 5", "== 6"))


def test_explanation_of_nothing(run):
    with pytest.raises(ValueError, match="no such mutants"):
        run(STRONG, {("return number", "left out"): "it was there once"})


@pytest.mark.parametrize("name", EQUIVALENTS)
def test_explained_mutants_are_there(name):
    found = {(mutant.text, mutant.change) for mutant in find_mutants((PACKAGE / f"{name}.py").read_text())}
    assert EQUIVALENTS[name].keys() <= found
    assert name in PURE
