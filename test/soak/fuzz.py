"""Fuzzing that is guided by coverage: inputs that reach code that no other one reached are changed further.

    run.py fuzz [SECONDS [TARGET...]]

Each target is a property test of Hypothesis, whose choices are made of the bytes that atheris comes up with. What fails
is remembered: the test itself tries it first when it runs the next time. For each target is told how many branches of
the package were reached, at first and at the end; a target that reaches none is not guided, and fails.

The inputs that reached new code are kept in .cache/fuzz, where the next run begins: an hour for a target may be one run
of an hour, or many short ones. Told is for how long each target ran in all.
atheris does not install on every Python: `.venv/bin/pip install atheris`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = (
    "auth.ticket_test:test_any_document_is_parsed_or_refused",
    "config.files_test:test_any_text",
    "fuzz.archive_test:test_changed_archives",
    "fuzz.archive_test:test_changed_headers",
    "fuzz.http_test:test_changed_requests",
    "fuzz.http_test:test_any_bytes",
    "fuzz.nbd_server_test:test_both_directions",
    "fuzz.nbd_server_test:test_changed_negotiation",
    "fuzz.nbd_server_test:test_server_or_gate",
    "fuzz.nbd_test:test_any_chunks",
    "fuzz.nbd_test:test_changed_negotiation",
    "fuzz.nbd_test:test_changed_replies",
    "fuzz.nbd_test:test_client",
    "fuzz.qemu_test:test_references",
    "geometry.byteranges_test:test_any_text_is_a_range_or_refused",
    "nbd.address_test:test_any_text_is_a_location_or_refused",
    "net.x509_test:test_any_bytes",
    "origin.jsonstream_test:test_any_bytes_are_decoded_or_refused",
    "origin.reply_test:test_any_body_is_taken_or_refused",
    "origin.reply_test:test_changed_answers",
    "sessions.token_test:test_any_change_is_refused",
)

SECONDS = 60

KEPT = Path(__file__).resolve().parents[2] / ".cache" / "fuzz"

# An input that takes longer hangs, and none may fill the memory.
SLOWEST_SECONDS = 20
MEMORY_MIB = 2048


def main(arguments: list[str]) -> int:
    """Fuzz each target for some seconds; return an exit status."""
    if importlib.util.find_spec("atheris") is None:
        print("Nothing is fuzzed: atheris is not installed; try .venv/bin/pip install atheris")
        return 0
    seconds = int(arguments[0]) if arguments else SECONDS
    failed = [name for name in arguments[1:] or TARGETS if not run(name, seconds)]
    print("Failed:" if failed else "None failed", *failed)
    return 1 if failed else 0


def run(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own; print what it did, and return False if it failed."""
    corpus = KEPT / name.replace(":", ".")
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        code = f"from soak.fuzz import fuzz; fuzz({name!r}, {seconds}, {str(corpus)!r}, {folder!r})"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = done.stderr.splitlines()
    # "#2 INITED cov: 12 ft: 12 ...", and at last "#4711 DONE cov: 57 ...".
    reached = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+) ", done.stderr, re.MULTILINE)
    if done.returncode or not reached:
        print(f"{name}:", "failed" if done.returncode else "nothing of the package is instrumented", flush=True)
        print(done.stdout, *(line for line in lines if not line.startswith("#")), sep="\n", flush=True)
        return False
    (_, first), (runs, last) = reached[0], reached[-1]
    in_all = add_seconds(corpus.parent / f"{corpus.name}.seconds", seconds)
    print(f"{name}: {runs} runs, {first} to {last} branches; {in_all} s in all", flush=True)
    return True


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
    module, _, function = name.partition(":")
    with atheris.instrument_imports(include=["ovirt_imageio"], enable_loader_override=False):
        test = getattr(importlib.import_module(module), function)
    options = [f"-max_total_time={seconds}", f"-timeout={SLOWEST_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"]
    options += ["-max_len=4096", "-len_control=0", f"-artifact_prefix={folder}/"]
    atheris.Setup(["fuzz", *options, corpus], test.hypothesis.fuzz_one_input)
    atheris.Fuzz()
