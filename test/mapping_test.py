"""Each module has its test file, at the same path, and each test file has its module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import source

# Tests of the whole, or of what is not in the package.
SPECIAL_FOLDERS = {
    *("bench", "crash", "docs", "fakes", "fuzz", "integration", "interop", "packaging", "real", "soak", "tools"),
    *("history", "interleavings", "machine", "torture"),
}
HOUSE_TESTS = {"exports_test.py", "layers_test.py", "mapping_test.py"}


def find_faults(package: Path, tests: Path) -> Iterator[str]:
    """Yield a sentence for each module without test file, and for each test file without module."""
    modules = source.read(package)
    expected = {expected_path(module, package): module for module in modules.values()}
    found = {
        path.relative_to(tests)
        for path in tests.rglob("*_test.py")
        if path.relative_to(tests).parts[0] not in SPECIAL_FOLDERS | HOUSE_TESTS
    }
    for path, module in sorted(expected.items()):
        if path not in found and not is_trivial(module):
            yield f"{module.path}: has no test in {tests / path}"
    for path in sorted(found - expected.keys()):
        yield f"{tests / path}: tests no module of {package.name}"


def expected_path(module: source.Module, package: Path) -> Path:
    """Return where the test of a module belongs; that of a package is init_test.py."""
    path = module.path.relative_to(package)
    return path.with_name(("init" if module.is_package else path.stem) + "_test.py")


def is_trivial(module: source.Module) -> bool:
    """Return True if there is nothing to test: only a docstring, imports and plain assignments."""
    plain = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
    return all(isinstance(node, plain) for node in module.tree.body)


def test_mapping():
    faults = list(find_faults(source.PACKAGE, source.ROOT / "test"))
    assert not faults, "\n" + "\n".join(faults)


PLANTED = {
    "module without test": ("sample/other.py", "def f(): pass", "other.py: has no test in"),
    "package without test": ("sample/inner/__init__.py", "class A: pass", "__init__.py: has no test in"),
    "test in the wrong folder": ("test/wire_test.py", "", "wire_test.py: tests no module of sample"),
    "test without module": ("test/inner/lost_test.py", "", "lost_test.py: tests no module of sample"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault(tmp_path, name):
    files = {
        "sample/__init__.py": '"""A package."""\nfrom sample.inner import wire\n__all__ = ["wire"]',
        "sample/version.py": '__version__ = "1"',
        "sample/inner/__init__.py": "",
        "sample/inner/wire.py": "def f(): pass",
        "test/inner/wire_test.py": "",
        "test/integration/whole_test.py": "",
        "test/layers_test.py": "",
        "test/conftest.py": "",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert list(find_faults(tmp_path / "sample", tmp_path / "test")) == []
    path, text, message = PLANTED[name]
    (tmp_path / path).write_text(text)
    assert message in "\n".join(find_faults(tmp_path / "sample", tmp_path / "test"))
