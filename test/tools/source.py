"""Reads the source of a package without running it: its modules, what they import, and what they define.

For the tests that keep the house in order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

__all__ = ["PACKAGE", "ROOT", "Import", "Module", "imports", "read"]

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "ovirt_imageio"


class Import(NamedTuple):
    """`name` is imported from `module` as `alias`; no name when the module itself is imported."""

    module: str
    name: Optional[str]
    alias: str
    line: int


@dataclass(frozen=True)
class Module:
    """One module: its dotted name, without the name of the package, its path and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Is it the __init__ of a package?"""
        return self.path.name == "__init__.py"

    def place(self, line: int) -> str:
        """Return where a fault is, as editors like it."""
        return f"{self.path}:{line}"


def read(package: Path) -> dict[str, Module]:
    """Return all modules of a package by their names; the package itself is called ""."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        name = ".".join(parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return found


def imports(module: Module, modules: dict[str, Module], package: str) -> Iterator[Import]:
    """Yield everything that a module imports, wherever that stands: in functions and for type checkers, too.

    Modules of the package come with their short names, as in `modules`; others with a name that starts with ":".
    """

    def short(name: str) -> str:
        if name == package:
            return ""
        return name[len(package) + 1 :] if name.startswith(package + ".") else ":" + name

    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                yield Import(short(alias.name), None, bound, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = short(_absolute(node, module, package))
            for alias in node.names:
                bound = alias.asname or alias.name
                inner = f"{origin}.{alias.name}".lstrip(".")
                if not origin.startswith(":") and inner in modules:
                    yield Import(inner, None, bound, node.lineno)
                else:
                    yield Import(origin, alias.name, bound, node.lineno)
        elif (target := _dynamic(node)) is not None:
            yield Import(short(target), None, "", node.lineno)


def _absolute(node: ast.ImportFrom, module: Module, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = [package, *filter(None, module.name.split("."))]
    up = node.level - 1 if module.is_package else node.level
    return ".".join(base[: len(base) - up] + ([node.module] if node.module else []))


def _dynamic(node: ast.AST) -> Optional[str]:
    """Return what import_module("...") or __import__("...") imports, if the node is such a call."""
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return None
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return str(node.args[0].value) if called in ("import_module", "__import__") else None
