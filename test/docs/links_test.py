"""What a page points at is there: other pages, headings, modules, and folders of the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import source
from tools.source import PACKAGE, ROOT

from docs import pages

LINK = re.compile(r'(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|<img src="([^"]+)"')

# Where a path in backticks may begin.
FOLDERS = (ROOT, PACKAGE, ROOT / "docs", ROOT / "test")
PATH = re.compile(r"`((?:[A-Za-z_.]+/)*[A-Za-z_]+\.(?:py|md|conf|spec)|(?:test|docs|conf|data)/[A-Za-z_./-]*)`")

# What a page names that is not in this repository: drop-ins of the reader. NAME stands for what a reader will write.
ELSEWHERE = {"60-vdsm.conf", "50-engine.conf", "99-user.conf"}


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"(?ms)^ *```.*?^ *```\s*?$", "", text)


def anchors(text: str) -> set[str]:
    """Return the names by which the headings of a page can be linked, as GitHub and others make them."""
    found = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def find_faults(page: str, text: str) -> Iterator[str]:
    """Yield what a page points at that is not there."""
    for match in LINK.finditer(prose(text)):
        target, _, anchor = (match[1] or match[2] or match[3]).partition("#")
        if re.match("[a-z]+:", target):
            continue
        path = ROOT / page if not target else (ROOT / page).parent / target
        if not path.exists():
            yield f"{page} links to {target}, which is not there"
        elif anchor and anchor not in anchors(path.read_text(encoding="utf-8")):
            yield f"{page} links to #{anchor}, which {path.name} does not have"
    for path in PATH.findall(prose(text)):
        if path not in ELSEWHERE and "NAME" not in path and not any((folder / path).exists() for folder in FOLDERS):
            yield f"{page} names {path}, which is not there"


@pytest.mark.parametrize("page", pages.names())
def test_what_is_named_is_there(page):
    assert list(find_faults(page, pages.read(page))) == []


def test_methods_that_are_named_are_there():
    known = set()
    for module in source.read(PACKAGE).values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                known |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    named = set(re.findall(r"`([A-Z]\w+\.[a-z]\w*)`", pages.read("docs/architecture.md")))
    assert named and named <= known


def test_each_room_is_described():
    told = set(re.findall(r"`([a-z_]+(?:/|\.py))`", "\n".join(rows("docs/architecture.md", "| room |"))))
    names = {path.name + "/" if path.is_dir() else path.name for path in PACKAGE.iterdir()}
    assert told == {name for name in names if name.endswith(("/", ".py")) and not name.startswith("__")}


def test_each_folder_of_tests_is_described():
    told = set(re.findall(r"`test/([a-z]+)/`", "\n".join(rows("docs/development.md", "| folder |"))))
    rooms = {path.name for path in PACKAGE.iterdir()}
    # A folder that only has caches in it is left over.
    found = {path.parent.name for path in (ROOT / "test").glob("*/*.py")} - rooms
    assert told == found


def test_each_decision_is_listed():
    told = set(re.findall(r"\]\(([a-z-]+\.md)\)", pages.read("docs/decisions/README.md")))
    assert told == {path.name for path in (ROOT / "docs/decisions").glob("*.md")} - {"README.md"}


def test_each_page_is_listed():
    told = set(re.findall(r"\]\((docs/[a-z-]+\.md)\)", pages.read("README.md")))
    assert told == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_each_decision_says_when_to_think_again():
    for page in pages.names():
        if page.startswith("docs/decisions/") and not page.endswith("README.md"):
            headings = re.findall("^## (.+)", pages.read(page), re.MULTILINE)
            assert headings[0] == "What decided" and headings[-2:] == ["What it costs", "When to think again"], page


@pytest.mark.parametrize("page", [page for page in pages.names() if page.startswith("docs/decisions/")])
def test_measured_lines_are_in_the_results(page):
    results = pages.read("docs/performance/results.md")
    measured = set(re.findall(r"^\| ([a-z0-9-]+) \|", results, re.MULTILINE))
    kinds = "|".join({name.partition("-")[0] for name in measured})
    named = set(re.findall(rf"`((?:{kinds})-[a-z0-9-]+)`", pages.read(page)))
    assert named <= measured


def rows(page: str, head: str) -> list[str]:
    """Return the first cells of the table with this head."""
    table = pages.read(page).partition(head)[2].partition("\n\n")[0]
    return [line.split("|")[1] for line in table.splitlines()[2:]]


PLANTED = {
    "lost page": ("[this](lost.md)", "links to lost.md"),
    "lost heading": ("[this](images.md#lost)", "links to #lost"),
    "lost module": ("`auth/lost.py`", "names auth/lost.py"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault(name):
    text, message = PLANTED[name]
    good = "[this](images.md#zero-and-flush-patch) `errors.py` `test/layers_test.py` [that](https://lost.example)\n"
    assert list(find_faults("docs/page.md", good)) == []
    (fault,) = find_faults("docs/page.md", good + text)
    assert message in fault
    assert Path(fault.split()[0]) == Path("docs/page.md")
