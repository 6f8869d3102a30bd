"""Each promise of docs/verify.md names tests, and they are there."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest
from tools.source import ROOT

from docs import pages

PAGE = "docs/verify.md"
NAMED = re.compile(r"`(test/[\w/]+\.py)::(\w+)`")


@functools.cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the tests in a file."""
    if not (ROOT / path).exists():
        return frozenset()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def find_faults(text: str) -> Iterator[str]:
    """Yield each promise without a test, and each test that is not there."""
    promises = text.partition("## What is promised")[2].partition("\n## ")[0]
    for row in re.findall(r"^\| (?!promise)(.+) \|$", promises, re.MULTILINE):
        if not NAMED.search(row):
            yield f"no test holds: {row}"
    for path, name in NAMED.findall(text):
        if name not in names_in(path):
            yield f"there is no {path}::{name}"


def test_promises_have_tests():
    assert list(find_faults(pages.read(PAGE))) == []


def test_there_are_promises():
    assert len(set(NAMED.findall(pages.read(PAGE)))) > 50


PLANTED = {
    "promise without a test": ("| Nothing is lost | |\n", "no test holds: Nothing is lost"),
    "lost test": ("| Nothing is lost | `test/docs/verify_test.py::test_lost` |\n", "there is no"),
    "lost file": ("| Nothing is lost | `test/docs/lost_test.py::test_it` |\n", "there is no"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault(name):
    row, message = PLANTED[name]
    page = "## What is promised\n\n| promise | tests |\n| {} | `test/docs/verify_test.py::test_planted_fault` |\n"
    assert list(find_faults(page)) == []
    (fault,) = find_faults(page + row)
    assert message in fault
