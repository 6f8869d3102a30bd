"""Run the whole suite under coverage, in two parts, and beside it a selection on each other supported Python.

A Python is found when python3.X is in the path, or when pyenv has it; each gets an environment of its own, .venv-3.X.
The part with whole programs shows what it does, and the other part what it did. The other Pythons follow with one line
each, or with all of the log when tests fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple, Optional, Union

VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")

# Tests wait for half of their time: with the part that is shown, these keep two processors busy until the end.
AT_ONCE = 3

LOGS = Path(".cache/pythons")
SUITE = ("coverage", "run", "-m", "pytest")

# The two parts take about the same time, 250 s of processor. The first one runs whole programs, and the second one has
# all other folders.
PROGRAMS = ("test/integration", "test/interop", "test/packaging", "test/tools")
PARTS = {"programs": PROGRAMS, "rooms": tuple(f"--ignore={folder}" for folder in PROGRAMS)}

# What differs between Pythons shows in the first cases of a test.
SELECTION = (
    *("-m", "not storage and not slow", "--cases=2", "--hypothesis-profile=beside"),
    *("-q", "-p", "no:cacheprovider"),
)

# What tests no part of the package, or searches for faults of ours by many tries, finds them on one Python. And whole
# daemons do on 3.10 and 3.12 what they do on the oldest and on the newest one.
FOLDERS = ("bench", "crash", "docs", "history", "interleavings", "packaging", "soak", "tools", "torture")
ONCE = (*FOLDERS, "exports_test.py", "layers_test.py", "mapping_test.py")
# Of whole daemons, how they start, and what they do when the storage hangs, is the same on each Python.
ALIKE = tuple(f"integration/{name}_test.py" for name in ("hanging", "hung_file", "restart", "start"))
WITHOUT_DAEMONS = ("3.10", "3.12")

# The whole suite takes longest: it goes first.
BEHIND = ("nice", "-n", "15")

# Each installation writes the metadata of the package into this checkout.
one_installs = threading.Lock()

# Set by Ctrl-C: the terminal tells the runs that go on, and the others do not begin.
is_stopping = threading.Event()


class Result(NamedTuple):
    """What became of one run; `text` is for the reader."""

    good: bool
    text: str


def main() -> int:
    """Run them all, whatever fails; return the exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    mine = "{}.{}".format(*sys.version_info)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        others = [pool.submit(run_rooms)]
        others += [pool.submit(run_other, version) for version in VERSIONS if version != mine]
        try:
            status = run_programs()
            for other in others:
                good, text = other.result()
                print(text, flush=True)
                status = status or int(not good)
        except KeyboardInterrupt:
            is_stopping.set()
            return 130
    return status


@contextlib.contextmanager
def own_folder() -> Iterator[str]:
    """Yield an option that gives a run of pytest a folder of its own.

    By default each run removes folders of earlier ones, and fails now and then when another one does so, too.
    """
    with tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as folder:
        yield f"--basetemp={folder}"


def command_of(part: str) -> tuple[str, ...]:
    """Return what runs one part of the whole suite."""
    return (sys.executable, "-m", *SUITE, *PARTS[part])


def log_of(part: str) -> Path:
    """Return where the output of a part is kept."""
    return Path(f".cache/pytest-{part}.log")


def run_programs() -> int:
    """Run the tests of whole programs, and show and keep what pytest says; return its exit status."""
    with contextlib.ExitStack() as scope:
        log = scope.enter_context(log_of("programs").open("w"))
        command = (*command_of("programs"), scope.enter_context(own_folder()))
        process = scope.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                log.write(line)
        except KeyboardInterrupt:
            is_stopping.set()
            raise
    return process.returncode


def run_rooms() -> Result:
    """Run all other tests, and keep what pytest says."""
    log = log_of("rooms")
    with log.open("w") as output, own_folder() as option:
        good = run(output, *command_of("rooms"), option)
    return Result(good, log.read_text())


def run_other(version: str) -> Result:
    """Run the selection on another Python, in an environment that is made when it must be."""
    python = next(candidates(version), None)
    if is_stopping.is_set():
        return Result(False, f"Python {version}: not run")
    if python is None:
        return Result(True, f"Python {version}: not found on this system")
    log = LOGS / f"{version}.log"
    venv = Path(f".venv-{version}")
    with log.open("w") as output:
        with one_installs:
            is_ready = prepare(python, venv, output)
        if not is_ready:
            reason = f"{python} cannot make an environment with what the tests need, see above"
            return Result(False, f"{log.read_text()}\nPython {version}: {reason}")
        with own_folder() as option:
            command = (venv / "bin/python", "-m", "pytest", *SELECTION, *left_out(version), option)
            good = run(output, *BEHIND, *command)
        if not good:
            return Result(False, f"{log.read_text()}\nPython {version}: the tests failed, see above")
    return Result(True, f"Python {version}: {log.read_text().splitlines()[-1]}")


def left_out(version: str) -> list[str]:
    """Return the arguments that leave out what is not run on a Python."""
    daemons = ("integration",) if version in WITHOUT_DAEMONS else ALIKE
    return [f"--ignore=test/{path}" for path in (*ONCE, *daemons)]


def candidates(version: str) -> Iterator[str]:
    """Yield the interpreters of a version that really start: shims of pyenv do not, unless that version is selected."""
    folders = os.get_exec_path()
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [Path(folder) / f"python{version}" for folder in folders]
    places += pyenv.glob(f"versions/{version}.*/bin/python")
    for place in places:
        if shutil.which(place) and version_of(place) == version:
            yield str(place)


def version_of(python: Path) -> Optional[str]:
    """Ask an interpreter for its version."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    result = subprocess.run((python, "-c", code), capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else None


def prepare(python: str, venv: Path, output: IO[str]) -> bool:
    """Make the environment, unless it is there and what it is made of has not changed."""
    ready = venv / "ready"
    if ready.exists() and ready.stat().st_mtime > Path("setup.py").stat().st_mtime:
        return True
    shutil.rmtree(venv, ignore_errors=True)
    install = (venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--editable", ".[test]")
    if run(output, python, "-m", "venv", venv) and run(output, *install):
        ready.touch()
        return True
    return False


def run(output: IO[str], *command: Union[str, Path]) -> bool:
    """Run a command with its output in a file; return True if it succeeds."""
    return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
