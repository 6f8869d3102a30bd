"""Each block of code in the documentation is run, checked, or says why not."""

from __future__ import annotations

import ast
import inspect
import json
import pydoc
import re
import subprocess
from pathlib import Path
from typing import Optional

import pytest
from docs.pages import Block

from docs import pages
from ovirt_imageio import config
from ovirt_imageio.auth import ticket
from ovirt_imageio.backends import registry
from ovirt_imageio.httpd import head

PAGES = {page: list(pages.blocks(page, pages.read(page))) for page in pages.names()}
BLOCKS = [block for page in PAGES.values() for block in page]

# Arguments that only tests use.
UNTOLD = {"now"}


def of(*languages: str, note: str = "") -> list[Block]:
    """Return the blocks of some languages, with one kind of note."""
    return [block for block in BLOCKS if block.language in languages and block.note == note]


@pytest.mark.parametrize("page", PAGES)
def test_code_is_fenced(page):
    assert list(pages.stray_lines(pages.read(page))) == [], "put code between ```LANGUAGE and ```"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_language_and_note(block):
    assert block.language in pages.LANGUAGES
    assert not block.note or block.note in pages.NOTES
    assert block.argument or block.note in ("", "output"), "say why it is not run"


@pytest.mark.parametrize("block", of("json") + of("json", note="output"), ids=str)
def test_json(block):
    document = json.loads(block.text)
    # What a client sends, not what we answer.
    if isinstance(document, dict) and {"uuid", "timeout"} <= document.keys() and "age" not in document:
        ticket.parse(document, check_url=registry.check_url)


@pytest.mark.parametrize("block", of("ini"), ids=str)
def test_ini(tmp_path, block):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "50-docs.conf").write_text(block.text)
    assert not config.load(tmp_path, tmp_path / "nothing").warnings


@pytest.mark.parametrize("block", of("http"), ids=str)
def test_http(block):
    parsed = head.parse(block.text.strip().replace("\n", "\r\n").encode())
    assert parsed.method


@pytest.mark.parametrize("block", of("python") + of("python", note="not run"), ids=str)
def test_python_can_be_read(block):
    ast.parse(block.text)


@pytest.mark.parametrize("block", of("sh", note="not run"), ids=str)
def test_shell_can_be_read(block):
    subprocess.run(["bash", "-n"], input=block.text.encode(), check=True)
    targets = set(re.findall(r"^([a-z-]+):", (pages.ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", block.text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("block", of("python", note="signatures"), ids=str)
def test_signatures(block):
    code = "".join(f"def {call}: pass\n" for call in re.findall(r"^\w+\((?:[^()]|\(\))*\)", block.text, re.MULTILINE))
    told = ast.parse(code).body
    assert told
    for function in told:
        assert isinstance(function, ast.FunctionDef)
        found = pydoc.locate(f"{block.argument}.{function.name}")
        assert found is not None, function.name
        assert parameters(function) == real_parameters(found), function.name


def parameters(function: ast.FunctionDef) -> dict[str, tuple[bool, object]]:
    """Return the parameters of a function in a page: is it for names only, and its default."""
    args = function.args
    missing = [None] * (len(args.args) - len(args.defaults))
    pairs = [*zip(args.args, [*missing, *args.defaults]), *zip(args.kwonlyargs, args.kw_defaults)]
    names = {arg.arg for arg in args.kwonlyargs}
    return {arg.arg: (arg.arg in names, default(value)) for arg, value in pairs}


def default(value: Optional[ast.expr]) -> object:
    """Return the default of a parameter in a page; a name stays a text."""
    if value is None:
        return inspect.Parameter.empty
    try:
        return ast.literal_eval(value)
    except ValueError:
        return ast.unparse(value)


def real_parameters(found: object) -> dict[str, tuple[bool, object]]:
    """Return the parameters of a function as they are."""
    told = {}
    for parameter in inspect.signature(found).parameters.values():  # type: ignore[arg-type]
        if parameter.name not in UNTOLD:
            value = "sys.stdout" if hasattr(parameter.default, "write") else parameter.default
            told[parameter.name] = (parameter.kind is parameter.KEYWORD_ONLY, value)
    return told


PAGE = """\
# A page

    stray

<!-- not run: it takes long -->
```sh
make bench
```

1. A list

   ```python
   if True:
       pass
   ```
"""


def test_blocks():
    first, second = pages.blocks("page.md", PAGE)
    assert first == Block("page.md", 6, "sh", "make bench\n", "not run", "it takes long")
    assert (second.line, second.language, second.text) == (12, "python", "if True:\n    pass\n")


def test_stray_lines():
    assert list(pages.stray_lines(PAGE)) == [3]


def test_there_are_pages():
    assert Path("README.md") in map(Path, PAGES) and len(BLOCKS) > 40
