"""Do the tests of a module notice when it is wrong? mutants.py [MODULE...]

A mutant is a module with one small fault: another comparison, a number that is off by one, a statement less. The test
file of the module must fail for each one. A mutant that it does not notice is printed; one that does the same as the
original, or differs only where it does not matter, is explained in equivalents.py.

A mutant exists only in the memory of a process of its own, which has a limited time: no file is changed.
"""

from __future__ import annotations

import ast
import copy
import importlib.machinery
import importlib.util
import marshal
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.equivalents import EQUIVALENTS
from tools.source import ROOT

__all__ = ["PURE", "Mutant", "Result", "find_mutants", "hunt"]

# The modules that must notice at least 9 of 10: they take no real parts, so there is no excuse.
PURE = (
    *("geometry/blocks", "geometry/byteranges", "geometry/extent", "geometry/outline", "geometry/qcow2"),
    *("geometry/ranges", "nbd/address", "nbd/errors", "nbd/handshake", "nbd/ledger", "nbd/offer", "nbd/replies"),
    *("nbd/requests", "nbd/status", "nbd/wire", "auth/agenda", "auth/books", "auth/cutter", "auth/lease", "auth/links"),
    *("auth/progress", "auth/record", "auth/ticket", "auth/use", "httpd/body", "httpd/framing", "httpd/head"),
    *("net/controls", "net/jws", "net/x509", "sessions/token"),
)

# The share of mutants, without those that are explained, that must be noticed.
ENOUGH = 0.9

JOBS = (os.cpu_count() or 1) + 1

# A mutant may take this many times as long as the original, and some seconds, of a processor.
PATIENCE = 3
SECONDS = 2
# One that waits for ever may take this many seconds; and none may take all memory.
DEADLINE = 120
MEMORY = 1024**3

# How many examples of each property are tried.
EXAMPLES = 20

# Whether tests fail is all that counts, not why.
OPTIONS = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-o", "timeout=0"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning", "--hypothesis-profile=mutants", "--hypothesis-seed=0"]

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
LOGIC = {ast.And: ast.Or, ast.Or: ast.And}

Place = tuple[str, Optional[int]]


@dataclass(frozen=True)
class Mutant:
    """A module with one fault: `change` in the line `text`."""

    line: int
    text: str
    change: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.line}: {self.text}    {self.change}"


@dataclass
class Result:
    """How many mutants of a module there are, which ones survived, and how many of the others are explained."""

    mutants: int
    survivors: list[Mutant]
    explained: int

    @property
    def killed(self) -> int:
        """How many were noticed."""
        return self.mutants - self.explained - len(self.survivors)

    @property
    def is_good(self) -> bool:
        """Were enough of them noticed?"""
        return self.killed >= ENOUGH * (self.mutants - self.explained)


# Making mutants


def find_mutants(source: str) -> Iterator[Mutant]:
    """Yield all mutants of a module."""
    tree = ast.parse(source)
    lines = source.splitlines()
    for index, statement in enumerate(tree.body):
        # Copying and compiling all of the module for each mutant would take most of the time.
        part = ast.Module([statement], [])
        original = marshal.dumps(compile(part, "", "exec"))
        for path, node in walk(part, ()):
            for change, replacement in changes(node):
                mutated = copy.deepcopy(part)
                put(mutated, path, replacement)
                ast.fix_missing_locations(mutated)
                # What the compiler makes the same of is the same: 1 << 0, and 1 >> 0.
                if marshal.dumps(compile(mutated, "", "exec")) != original:
                    line: int = getattr(node, "lineno", 0)
                    whole = ast.Module([*tree.body[:index], *mutated.body, *tree.body[index + 1 :]], [])
                    yield Mutant(line, lines[line - 1].strip(), change, whole)


def walk(node: ast.AST, path: tuple[Place, ...]) -> Iterator[tuple[tuple[Place, ...], ast.AST]]:
    """Yield each node that can be wrong, and the way to it; annotations, decorators and texts cannot."""
    yield path, node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "ctx") or isinstance(node, (ast.JoinedStr, ast.Import)):
            continue
        if isinstance(value, ast.AST):
            yield from walk(value, (*path, (name, None)))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from walk(item, (*path, (name, index)))


def put(tree: ast.AST, path: tuple[Place, ...], replacement: ast.AST) -> None:
    """Replace the node at the end of a path."""
    node = tree
    for name, index in path[:-1]:
        node = getattr(node, name) if index is None else getattr(node, name)[index]
    name, index = path[-1]
    if index is None:
        setattr(node, name, replacement)
    else:
        getattr(node, name)[index] = replacement


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what can be wrong with one node, and what then stands in its place."""
    if isinstance(node, ast.stmt):
        yield from statement_changes(node)
    elif isinstance(node, ast.expr):
        yield from expression_changes(node)


def statement_changes(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Yield statements that are left out, tests that are turned round, and other results."""
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_call = isinstance(node, ast.Expr) and not is_text
    stores = isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    if is_call or stores or isinstance(node, (ast.AugAssign, ast.Raise, ast.Delete, ast.Continue, ast.Break)):
        yield "left out", ast.copy_location(ast.Pass(), node)
    if isinstance(node, (ast.If, ast.While)):
        yield "turned round", replaced(node, test=ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.AugAssign):
        yield from swaps(node, ARITHMETIC)
    if isinstance(node, ast.Return) and node.value is not None:
        value = node.value
        if not isinstance(value, ast.Constant):
            yield "returns None", replaced(node, value=ast.Constant(None))
        if isinstance(value, ast.Tuple) and len(value.elts) == 2:
            yield "returns them swapped", replaced(node, value=ast.Tuple(value.elts[::-1], ast.Load()))


def expression_changes(node: ast.expr) -> Iterator[tuple[str, ast.AST]]:
    """Yield other operators and other constants."""
    if isinstance(node, ast.BinOp):
        yield from swaps(node, ARITHMETIC)
    elif isinstance(node, ast.BoolOp):
        yield from swaps(node, LOGIC)
    elif isinstance(node, ast.UnaryOp):
        yield f"without {type(node.op).__name__}", node.operand
    elif isinstance(node, ast.IfExp):
        yield "turned round", replaced(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]()
            operators = [*node.ops[:index], other, *node.ops[index + 1 :]]
            yield f"{type(operator).__name__} to {type(other).__name__}", replaced(node, ops=operators)
    elif isinstance(node, ast.Constant):
        for value in other_values(node.value):
            yield f"{node.value!r} to {value!r}", ast.copy_location(ast.Constant(value), node)


def other_values(value: object) -> Iterator[object]:
    """Yield what a constant could be by mistake; texts are for people."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        yield value - 1
    elif isinstance(value, bytes):
        yield value[:-1] + b"?" if value else b"?"


def swaps(node: ast.AST, table: dict[type, type]) -> Iterator[tuple[str, ast.AST]]:
    """Yield the node with another operator, if its own is in the table."""
    operator = node.op  # type: ignore[attr-defined]
    if type(operator) in table:
        other = table[type(operator)]()
        yield f"{type(operator).__name__} to {type(other).__name__}", replaced(node, op=other)


def replaced(node: ast.AST, **fields: object) -> ast.AST:
    """Return the node with other fields."""
    result = copy.copy(node)
    for name, value in fields.items():
        setattr(result, name, value)
    return result


# Running tests against them


class Loader(importlib.machinery.SourceFileLoader):
    """Loads the tree of a mutant instead of the file."""

    def __init__(self, name: str, path: str, tree: ast.Module) -> None:
        super().__init__(name, path)
        self._tree = tree

    def get_code(self, fullname: str) -> object:
        """Return the code of the mutant."""
        return compile(self._tree, self.path, "exec")


class Finder:
    """Finds the mutant where its module is imported."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._loader = Loader(name, str(path), tree)

    def find_spec(self, name: str, *args: object) -> Optional[importlib.machinery.ModuleSpec]:
        """Return where the module comes from, None if it is another one."""
        if name != self._loader.name:
            return None
        return importlib.util.spec_from_file_location(name, self._loader.path, loader=self._loader)


def hunt(name: str, path: Path, test: Path, explanations: dict[tuple[str, str], str]) -> Result:
    """Run a test file against each mutant of the module `name`; raises ValueError if it fails for the original."""
    prepare()
    source = path.read_text(encoding="utf-8")
    before = used_by_children()
    if run_all([lambda: run_tests(test)], DEADLINE) != [True]:
        raise ValueError(f"{test} fails without any mutant")
    limit = SECONDS + int(PATIENCE * (used_by_children() - before))
    mutants = list(find_mutants(source))
    keys = {(mutant.text, mutant.change) for mutant in mutants}
    stale = [key for key in explanations if key not in keys]
    if stale:
        raise ValueError(f"There are no such mutants of {name}: {stale}")
    left = [mutant for mutant in mutants if (mutant.text, mutant.change) not in explanations]

    def against(mutant: Mutant) -> Callable[[], bool]:
        def run() -> bool:
            sys.meta_path.insert(0, Finder(name, path, mutant.tree))  # type: ignore[arg-type]
            return run_tests(test)

        return run

    passed_all = run_all([against(mutant) for mutant in left], limit)
    survivors = [mutant for mutant, passed in zip(left, passed_all) if passed]
    return Result(len(mutants), survivors, len(mutants) - len(left))


def prepare() -> None:
    """Import once what the tests of every mutant need."""
    import hypothesis.strategies
    import pytest  # noqa: F401

    # Few examples find most faults, and the same ones each time; they need not be made small.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=EXAMPLES,
        deadline=None,
        phases=phases,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def used_by_children() -> float:
    """Return how many seconds of a processor the processes took that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_all(runs: list[Callable[[], bool]], seconds: int) -> list[bool]:
    """Run each function in a process of its own, a few at once; return which of them returned True in time."""
    results = [False] * len(runs)
    waiting = list(enumerate(runs))[::-1]
    running: dict[int, int] = {}
    while waiting or running:
        while waiting and len(running) < JOBS:
            index, run = waiting.pop()
            running[fork(run, seconds)] = index
        pid, status = os.wait()
        results[running.pop(pid)] = status == 0
    return results


def fork(run: Callable[[], bool], seconds: int) -> int:
    """Run a function in a new process, whose status is 0 if it returned True; return its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        # What it takes too much of ends it.
        signal.alarm(DEADLINE)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        # What the parent has of address space is not the mutant's.
        limit = MEMORY + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        status = 0 if run() else 1
    finally:
        os._exit(status)


def run_tests(test: Path) -> bool:
    """Return True if the tests of a file pass."""
    import pytest

    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        return pytest.main([*OPTIONS, f"--basetemp={folder}/t", str(test)]) == 0


def main(names: list[str]) -> int:
    """Hunt in the modules of these names, or in all pure ones; print a table, return an exit status."""
    os.chdir(ROOT)
    bad = 0
    print("| module | mutants | noticed | explained | not noticed |\n|---|---|---|---|---|", flush=True)
    for name in names or PURE:
        module = "ovirt_imageio." + name.replace("/", ".")
        test = ROOT / "test" / f"{name}_test.py"
        result = hunt(module, ROOT / "ovirt_imageio" / f"{name}.py", test, EQUIVALENTS.get(name, {}))
        counts = (result.mutants, result.killed, result.explained, len(result.survivors))
        print(f"| `{name}` |", " | ".join(map(str, counts)), "|", flush=True)
        for mutant in result.survivors:
            print(f"    {name}.py:{mutant}", file=sys.stderr, flush=True)
        bad += not result.is_good
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
