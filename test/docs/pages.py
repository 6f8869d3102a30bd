"""The pages of the documentation, and the blocks of code in them.

    <!-- not run: it takes a quarter of an hour -->      why a block is not run; anything else is run or checked
    <!-- until: Ready -->                                runs until it prints that, and is then stopped with Ctrl-C
    <!-- output -->                                      what the block before prints, in the same shape
    <!-- drawing: queue -->                              a state machine, which drawings_test.py compares with the code
    <!-- signatures: ovirt_imageio.client -->            how the functions of that module are called

stand in the line before the fence.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from tools.source import ROOT

__all__ = ["LANGUAGES", "NOTES", "Block", "blocks", "names", "read", "stray_lines"]

# What can be run or checked, and what is only to be read.
LANGUAGES = {"sh", "python", "json", "ini", "http", "text", "mermaid", "haproxy", "nginx", "go"}

NOTES = {"drawing", "not run", "output", "signatures", "until"}

NOTE = re.compile(r"\s*<!-- ([a-z ]+?)(?:: (.+?))? -->\s*")
FENCE = re.compile(r"\s*```(\S*)\s*")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, its language, its text, and the note before it: its kind and what it says."""

    page: str
    line: int
    language: str
    text: str
    note: str = ""
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def names() -> list[str]:
    """Return the paths of all pages, relative to the root of the project."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def read(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    start, language, inside = 0, "", False
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        fence = FENCE.fullmatch(line)
        if not fence:
            continue
        if inside:
            note = NOTE.fullmatch(lines[start - 2]) if start > 1 else None
            kind, argument = (note[1], note[2] or "") if note else ("", "")
            body = textwrap.dedent("\n".join(lines[start : number - 1])) + "\n"
            yield Block(page, start, language, body, kind, argument)
        start, language, inside = number, fence[1], not inside


def stray_lines(text: str) -> Iterator[int]:
    """Yield the numbers of the lines that are code without a fence: those that are indented by four blanks."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.fullmatch(line):
            inside = not inside
        elif line.startswith("    ") and not inside:
            yield number
