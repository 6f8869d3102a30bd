"""Run the tests that tell soonest whether a change is good: quick.py [WHAT]

Without WHAT: the tests of the modules that changed since the last commit, of the modules that import these, and those
that keep the house in order. WHAT is a folder or a module, like "auth" or "nbd/wire", a path, or "all": everything that
needs no real storage.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import source

__all__ = ["changed", "chosen", "tests_of"]

HOUSE = (
    "test/exports_test.py",
    "test/layers_test.py",
    "test/mapping_test.py",
    # What pages name (modules, methods, tests, states) has to be there.
    "test/docs/drawings_test.py",
    "test/docs/links_test.py",
    "test/docs/verify_test.py",
)

# What is not a module, and the test that reads it.
OTHERS = {
    "conf": "test/packaging/configuration_test.py",
    "daemon": "test/packaging/install_test.py",
    "data": "test/packaging/system_test.py",
    "docs": "test/docs",
    "README.md": "test/docs",
    "setup.py": "test/packaging/install_test.py",
    "Makefile": "test/packaging/make_test.py",
    "ovirt-imageio.spec": "test/packaging/rpm_test.py",
}

# A module that more others import is not worth it: their tests would take minutes, and "all" is the word for that.
IMPORTERS = 10


def main(what: str = "") -> int:
    """Run pytest in place of this process, or say why there is nothing to run."""
    options = ["--quiet", "--no-header", "--hypothesis-profile=quick"]
    if what == "all":
        options += ["-m", "not storage"]
    elif what:
        options.append(chosen(source.ROOT, what))
    elif paths := changed(source.ROOT):
        tests = tests_of(source.ROOT, paths)
        print("Tests of what changed since the last commit:", *tests, sep="\n  ", flush=True)
        options += [*HOUSE, *tests]
    else:
        print("Nothing changed since the last commit. T=auth picks a folder, T=all everything without real storage.")
        return 0
    os.chdir(source.ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options])


def chosen(root: Path, what: str) -> str:
    """Return the path of the tests of a folder, of a module, or of a path, relative to the root."""
    name = what.rstrip("/").removesuffix(".py").removeprefix("ovirt_imageio/").removeprefix("test/")
    for path in (f"test/{name}", f"test/{name}_test.py", f"test/{name}.py"):
        if (root / path).exists():
            return path
    sys.exit(f"There are no tests in test/{name} or test/{name}_test.py")


def changed(root: Path) -> list[str]:
    """Return the paths that are not as in the last commit, relative to the root; what was deleted is among them."""
    command = ("git", "status", "--porcelain", "--untracked-files=all", "--no-renames", "-z")
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [entry[3:] for entry in result.stdout.split("\0") if entry]


def tests_of(root: Path, paths: Sequence[str]) -> list[str]:
    """Return the test files that tell whether these changes are good."""
    modules = source.read(root / "ovirt_imageio")
    importers = _importers(modules, "ovirt_imageio")
    has_helpers = any(path.startswith("test/") and not path.endswith("_test.py") for path in paths)
    users = _importers(source.read(root / "test"), "test") if has_helpers else {}
    found: set[str] = set()
    for path in paths:
        top = path.partition("/")[0]
        name = path.partition("/")[2].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if path.endswith("_test.py"):
            found.add(path)
        elif path.endswith("/conftest.py"):
            found.add(path.removesuffix("/conftest.py"))
        elif top == "test":
            found.update(f"test/{user.replace('.', '/')}.py" for user in _near(users, f":{name}"))
        elif top == "ovirt_imageio":
            found.update(_test_of(module, modules) for module in (name, *_near(importers, name)))
        elif top in OTHERS:
            found.add(OTHERS[top])
    # A change of test/conftest.py concerns all tests: that is "all".
    return sorted(path for path in found - {"test"} - set(HOUSE) if _is_test(root / path))


def _test_of(name: str, modules: dict[str, source.Module]) -> str:
    """Return where the test of a module is: at the same path; that of a package is init_test.py."""
    path = name.replace(".", "/")
    return f"test/{path}/init_test.py" if name in modules and modules[name].is_package else f"test/{path}_test.py"


def _is_test(path: Path) -> bool:
    return path.is_dir() or (path.name.endswith("_test.py") and path.exists())


def _importers(modules: dict[str, source.Module], package: str) -> dict[str, set[str]]:
    """Return the modules that import each module, or a name of it."""
    found: dict[str, set[str]] = {}
    for module in modules.values():
        for each in source.imports(module, modules, package):
            for name in (each.module, f"{each.module}.{each.name}"):
                found.setdefault(name, set()).add(module.name)
    return found


def _near(importers: dict[str, set[str]], name: str) -> set[str]:
    """Return the modules that import this one, unless these are many."""
    found = importers.get(name, set())
    return found if len(found) <= IMPORTERS else set()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
