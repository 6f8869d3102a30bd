"""How `make check` finds other Pythons."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tools import pythons


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
