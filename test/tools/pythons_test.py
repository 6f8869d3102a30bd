"""How `make check` finds other Pythons."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tools import pythons

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system without any Python, and without pyenv."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(pythons, "LOGS", tmp_path)
    return tmp_path


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_missing_python_is_told_and_fails_nothing(system):
    assert pythons.run_other("3.9") == (True, "Python 3.9: not found on this system")


def test_in_the_path_and_of_pyenv(system):
    one = program(system / "bin/python3.9", "echo 3.9")
    other = program(system / "pyenv/versions/3.9.18/bin/python", "echo 3.9")
    program(system / "pyenv/versions/3.10.1/bin/python", "echo 3.10")
    assert list(pythons.candidates("3.9")) == [one, other]


def test_what_does_not_start_or_is_another_version_is_passed_over(system):
    program(system / "bin/python3.9", "echo 3.11")
    program(system / "pyenv/versions/3.9.1/bin/python", "echo 'pyenv: not selected'; exit 127")
    assert list(pythons.candidates("3.9")) == []


def test_an_environment_that_cannot_be_made_fails(system, monkeypatch):
    monkeypatch.chdir(system)
    (system / "setup.py").touch()
    program(system / "bin/python3.9", '[ "$1" = -c ] && echo 3.9 || { echo "no venv here"; exit 1; }')
    good, text = pythons.run_other("3.9")
    assert not good
    assert "no venv here" in text
    assert f"{system}/bin/python3.9 cannot make an environment" in text


def test_version_of_this_one():
    assert pythons.version_of(Path(sys.executable)) == "{}.{}".format(*sys.version_info)


def test_parts_are_the_whole_suite():
    """What one part names, the other one ignores; a folder that is named is there."""
    assert pythons.PARTS["rooms"] == tuple(f"--ignore={folder}" for folder in pythons.PARTS["programs"])
    assert all((ROOT / folder).is_dir() for folder in pythons.PROGRAMS)
    assert all((ROOT / "test" / path).exists() for path in (*pythons.ONCE, *pythons.ALIKE))


def test_two_cases_of_each_test():
    command = (sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "test/units_test.py")
    everything, selection = (
        subprocess.run((*command, *arguments), cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
        for arguments in (("-q",), pythons.SELECTION)
    )
    cases = Counter(line.partition("[")[0] for line in everything if "::" in line)
    assert max(cases.values()) > 2
    assert Counter(line.partition("[")[0] for line in selection if "::" in line) == {
        test: min(count, 2) for test, count in cases.items()
    }


def test_whole_daemons_run_on_the_oldest_and_the_newest_python():
    assert [version for version in pythons.VERSIONS if "--ignore=test/integration" in pythons.left_out(version)] == [
        "3.10",
        "3.12",
    ]


def test_a_part_that_fails(system, monkeypatch):
    monkeypatch.chdir(system)
    Path(".cache").mkdir()
    monkeypatch.setattr(pythons, "command_of", lambda part: (sys.executable, "-c", f"exit('{part}')"))
    assert pythons.run_rooms() == (False, "rooms\n")
    assert pythons.run_programs() == 1
