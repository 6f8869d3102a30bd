"""The words of the log that docs/operations.md tells are those of the code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

import pytest
from tools import source
from tools.source import PACKAGE

from docs import pages

PAGE = "docs/operations.md"

# What differs, in a format string, and in the page.
PLACE = re.compile(r"%(?:\(\w+\))?[-+ #0]*[0-9.]*[sdrgfx]")
ANY = "..."


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module, with what differs replaced."""
    remarks = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if node in remarks:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else ANY for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield PLACE.sub(ANY, node.value)


@functools.cache
def code() -> str:
    """Return all texts of the package."""
    return "\n".join(text for module in source.read(PACKAGE).values() for text in texts(module.tree))


def words() -> list[str]:
    """Return the lines that the page quotes."""
    blocks = [block for block in pages.blocks(PAGE, pages.read(PAGE)) if block.language == "text"]
    return [line for block in blocks for line in block.text.splitlines()]


def is_told(line: str) -> bool:
    """Return True if the code has each part of the line that does not differ; a status and its phrase are HTTP's."""
    line = re.sub(r"^[45]\d\d [A-Z][A-Za-z ]+: ", "", line)
    parts = [part.strip(" :,") for part in line.split(ANY)]
    pattern = re.escape(line).replace(re.escape(ANY), ".*")
    return any(len(part) > 3 for part in parts) and re.search(pattern.removeprefix(".*"), code()) is not None


@pytest.mark.parametrize("line", words())
def test_words_are_those_of_the_code(line):
    assert is_told(line)


def test_other_words_are_found():
    assert not is_told("Refused a connexion client=...: ...")
    assert not is_told("...: ...")
    assert len(words()) > 20
