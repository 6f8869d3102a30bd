"""`__all__` is true: it names what exists, forgets nothing, and no module imports from another one what is not in it.

Constants in capitals may be left out: a table of them is public as a whole.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import source


def find_faults(package: Path) -> Iterator[str]:
    """Yield a sentence for each lie in an `__all__`."""
    modules = source.read(package)
    exports = {name: exported(module) for name, module in modules.items()}
    for name, module in modules.items():
        if exports[name] is None:
            if not all(is_free(name) for name in defined(module)):
                yield f"{module.path}: has no __all__"
        else:
            yield from find_lies(module, exports[name])
        yield from find_trespasses(module, modules, exports, package.name)


def find_lies(module: source.Module, names: list[str]) -> Iterator[str]:
    """Yield what is wrong with the `__all__` of a module."""
    known = defined(module) | imported(module)
    for name in names:
        if name not in known:
            yield f"{module.path}: __all__ names {name}, which does not exist"
    if len(names) != len(set(names)):
        yield f"{module.path}: __all__ names something twice"
    # What is neither exported nor used here has no user: it was forgotten in __all__, or it is dead.
    used = {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for name in sorted(defined(module) - set(names) - used):
        if not is_free(name):
            yield f"{module.path}: {name} is neither in __all__ nor used"


def find_trespasses(
    module: source.Module, modules: dict[str, source.Module], exports: dict[str, list[str] | None], package: str
) -> Iterator[str]:
    """Yield where a module uses something of another one that is not in the `__all__` of that one."""
    bound = {}
    for found in source.imports(module, modules, package):
        if found.module not in modules:
            continue
        if found.name is None:
            bound[found.alias] = found.module
        elif not is_free(found.name) and found.name not in (exports[found.module] or ()):
            yield f"{module.place(found.line)}: {found.name} is not in __all__ of {found.module or package}"
    for node in attributes(module.tree, bound.keys()):
        target = bound[node.value.id]
        is_module = f"{target}.{node.attr}".lstrip(".") in modules
        if not is_module and not is_free(node.attr) and node.attr not in (exports[target] or ()):
            yield f"{module.place(node.lineno)}: {node.attr} is not in __all__ of {target or package}"


def attributes(tree: ast.AST, names: set[str]) -> Iterator[ast.Attribute]:
    """Yield each `name.attribute`, but not where a function has a variable or argument of that name."""
    for node in ast.iter_child_nodes(tree):
        visible = names
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            visible = names - local_names(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in visible:
            yield node
        yield from attributes(node, visible)


def local_names(function: ast.AST) -> set[str]:
    """Return the names of arguments and variables of a function."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def is_free(name: str) -> bool:
    """Return True for names that need no mention: public constants, and what belongs to Python."""
    return (name.isupper() and not name.startswith("_")) or (name.startswith("__") and name.endswith("__"))


def exported(module: source.Module) -> list[str] | None:
    """Return `__all__`, None if there is none."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def defined(module: source.Module) -> set[str]:
    """Return the names of functions, classes and variables that a module defines, private ones included."""
    found = set()
    for node in statements(module.tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found - {"__all__"}


def imported(module: source.Module) -> set[str]:
    """Return the names that a module imports at its top."""
    nodes = [node for node in statements(module.tree.body) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {alias.asname or alias.name.split(".")[0] for node in nodes for alias in node.names}


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements at the top, those under `if` and `try` included."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)


def test_exports():
    faults = list(find_faults(source.PACKAGE))
    assert not faults, "\n" + "\n".join(faults)


GOOD = {
    "__init__.py": '"""A package."""',
    "empty.py": '"""Nothing."""',
    "one.py": """
import sys
__all__ = ["LIMIT", "Thing", "make", "sys"]
LIMIT: int = 1
OTHER = 2
class Thing: pass
if sys.platform:
    def make(): return helper()
else:
    make = None
def helper(): pass
""",
    "two.py": """
from sample import one
from sample.one import Thing
__all__ = ["use"]
def use(): return one.make() + one.OTHER, Thing, one.__name__
def _shadow(one): return one.anything
use = _shadow(use)
""",
}

PLANTED = {
    "no __all__": ("three.py", "def f(): pass", "three.py: has no __all__"),
    "does not exist": ("three.py", '__all__ = ["f"]', "__all__ names f, which does not exist"),
    "twice": ("three.py", '__all__ = ["f", "f"]\nf = 1', "names something twice"),
    "forgotten function": ("three.py", "__all__ = []\ndef f(): pass", "f is neither in __all__ nor used"),
    "forgotten class": ("three.py", '__all__ = ["x"]\nx = 1\nclass Lost: pass', "Lost is neither in __all__"),
    "dead and private": ("three.py", "__all__ = []\ndef _f(): pass", "_f is neither in __all__ nor used"),
    "not exported": ("three.py", "from sample.one import helper", "three.py:1: helper is not in __all__ of one"),
    "not exported, by module": (
        "three.py",
        "from . import one as o\no.helper()",
        "three.py:2: helper is not in __all__",
    ),
    "private constant": ("three.py", "from sample.one import _LIMIT", "_LIMIT is not in __all__ of one"),
    "not exported, in function": (
        "three.py",
        '__all__ = ["f"]\nfrom sample import one\ndef f(a):\n    return one.helper(a)',
        "three.py:4: helper is not in __all__ of one",
    ),
    "in a package": ("inner/__init__.py", "def f(): pass", "inner/__init__.py: has no __all__"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault(tmp_path, name):
    package = tmp_path / "sample"
    (package / "inner").mkdir(parents=True)
    for path, text in GOOD.items():
        (package / path).write_text(text)
    assert list(find_faults(package)) == []
    path, text, message = PLANTED[name]
    (package / path).write_text(text)
    assert message in "\n".join(find_faults(package))
