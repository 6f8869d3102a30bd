"""Fuzzing that is guided by coverage: inputs that reach code that no other one reached are changed further.

    run.py fuzz [SECONDS [TARGET...]]

A target is one of test/fuzz/targets.py, whose bytes atheris changes itself, beginning with good ones; or a property
test of Hypothesis, whose choices are made of the bytes that atheris comes up with. For each target is told how many
branches of the package were reached, at first and at the end; a target that reaches none is not guided, and fails.
The input that fails is told; Hypothesis remembers it, and the test itself tries it first when it runs the next time.

The inputs that reached new code are kept in .cache/fuzz, where the next run begins: an hour for a target may be one run
of an hour, or many short ones. Told are the seconds of processor time that each target got in all: on a busy machine
they are fewer than those on the clock.
atheris does not install on every Python: `.venv/bin/pip install atheris`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

# Properties whose inputs have more of a shape than bytes have.
PROPERTIES = (
    "fuzz.http_test:test_changed_requests",
    "fuzz.nbd_server_test:test_server_or_gate",
    "fuzz.nbd_test:test_any_chunks",
    "fuzz.qemu_test:test_references",
    "sessions.token_test:test_any_change_is_refused",
)

SECONDS = 60

KEPT = Path(__file__).resolve().parents[2] / ".cache" / "fuzz"

# An input that takes longer hangs, and none may fill the memory.
SLOWEST_SECONDS = 20
MEMORY_MIB = 2048

# Bytes of an input, but where good ones are longer than half of this.
LONGEST = 4096


def main(arguments: list[str]) -> int:
    """Fuzz each target for some seconds; return an exit status."""
    if importlib.util.find_spec("atheris") is None:
        print("Nothing is fuzzed: atheris is not installed; try .venv/bin/pip install atheris")
        return 0
    from fuzz.targets import TARGETS

    seconds = int(arguments[0]) if arguments else SECONDS
    failed = [name for name in arguments[1:] or (*TARGETS, *PROPERTIES) if not run(name, seconds)]
    print("Failed:" if failed else "None failed", *failed)
    return 1 if failed else 0


def run(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own; print what it did, and return False if it failed."""
    corpus = KEPT / name.replace(":", ".")
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        code = f"from soak.fuzz import fuzz; fuzz({name!r}, {seconds}, {str(corpus)!r}, {folder!r})"
        command = [sys.executable, "-c", code]
        begin = processor_seconds()
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        found = [path.read_bytes() for path in Path(folder).glob("*-*")]
    lines = done.stderr.splitlines()
    # "#2 INITED cov: 12 ft: 12 ...", and at last "#4711 DONE cov: 57 ...".
    reached = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+) ", done.stderr, re.MULTILINE)
    if done.returncode or not reached:
        print(f"{name}:", "failed" if done.returncode else "nothing of the package is instrumented", flush=True)
        print(done.stdout, *(line for line in lines if not line.startswith("#")), *found, sep="\n", flush=True)
        return False
    (_, first), (runs, last) = reached[0], reached[-1]
    taken = processor_seconds() - begin
    in_all = add_seconds(corpus.parent / f"{corpus.name}.seconds", taken)
    print(f"{name}: {runs} runs, {first} to {last} branches, {taken} s; {in_all} s in all", flush=True)
    return True


def processor_seconds() -> int:
    """Return the time that processors gave to the processes that we ran."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(usage.ru_utime + usage.ru_stime)


def add_seconds(path: Path, seconds: int) -> int:
    """Return the number in a file, which may not be there yet, with the seconds added; the file has it then."""
    total = seconds + (int(path.read_text()) if path.exists() else 0)
    path.write_text(f"{total}\n")
    return total


def fuzz(name: str, seconds: int, corpus: str, folder: str) -> None:
    """Fuzz one target, beginning with the inputs in corpus, and end this process; folder is for its other files."""
    import logging

    import atheris

    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["ovirt_imageio"], enable_loader_override=False):
        test, seeds = find(name)
    begin = Path(folder, "seeds")
    begin.mkdir()
    for number, seed in enumerate(seeds):
        (begin / str(number)).write_bytes(seed)
    longest = max([LONGEST, *(2 * len(seed) for seed in seeds)])
    options = [f"-max_total_time={seconds}", f"-timeout={SLOWEST_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"]
    options += [f"-max_len={longest}", "-len_control=0", f"-artifact_prefix={folder}/"]
    atheris.Setup(["fuzz", *options, corpus, str(begin)], test)
    atheris.Fuzz()


def find(name: str) -> tuple[Callable[[bytes], object], Sequence[bytes]]:
    """Return a function of bytes, and inputs to begin with."""
    module, _, function = name.partition(":")
    if function:
        return getattr(importlib.import_module(module), function).hypothesis.fuzz_one_input, []
    return importlib.import_module("fuzz.targets").TARGETS[name]
