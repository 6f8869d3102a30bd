"""What `packages` says and does on systems that lack something, or nothing."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from tools.source import ROOT

pytestmark = pytest.mark.storage

SCRIPT = ROOT / "test/tools/packages"

# What tests look for, and every system has; and our own.
EVERYWHERE = {"setpriv", "ovirt-img"}

# What a machine may lack: Node.js is larger than all the rest, for a second opinion on one page.
OPTIONAL = {"node"}

# What only one distribution has.
DEBIAN_ONLY = {"dh_python3"}

# What the script itself runs.
PROGRAMS = ("bash", "cat", "dirname", "ln", "paste", "sed", "sort", "tail", "tr")
INSTALLER = """#!/bin/bash
echo "$@" >>"$(dirname "$0")/calls"
[[ $1 == install && -e $(dirname "$0")/works ]] || exit 0
for program in qemu-img qemu-nbd openssl curl python3; do
    ln -sf /bin/true "$(dirname "$0")/$program"
done
"""


@pytest.fixture
def system(tmp_path):
    """A system on which nothing is installed."""
    for name in PROGRAMS:
        (tmp_path / name).symlink_to(shutil.which(name))
    become(tmp_path, 0)
    return tmp_path


def become(system, uid):
    write(system / "id", f"#!/bin/bash\necho {uid}\n")


def write(path, text):
    path.write_text(text)
    path.chmod(0o755)


def run(system):
    return subprocess.run(
        [SCRIPT, "run"],
        env={"PATH": str(system), "PYTHON": "python3", "SBIN": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )


def calls(system):
    path = system / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(
    "installer, command",
    [
        ("apt-get", "apt-get update && apt-get install --yes --no-install-recommends"),
        ("dnf", "dnf install --assumeyes"),
    ],
)
def test_users_are_told_what_to_do(system, installer, command):
    become(system, 1000)
    write(system / installer, INSTALLER)
    result = run(system)
    assert result.returncode == 1
    assert f"Please run as root:  {command} " in result.stderr
    assert ("qemu-utils" if installer == "apt-get" else "qemu-img") in result.stderr
    assert calls(system) == []


def test_root_installs(system):
    write(system / "apt-get", INSTALLER)
    (system / "works").touch()
    result = run(system)
    assert result.returncode == 0, result.stderr
    # To serve a disk takes no compiler.
    packages = "curl openssl python3-venv qemu-utils"
    assert calls(system) == ["update -qq", f"install --yes --no-install-recommends {packages}"]
    # Now everything is there: no package manager is asked.
    (system / "calls").unlink()
    assert run(system).returncode == 0
    assert calls(system) == []


def test_broken_install_is_noticed(system):
    write(system / "dnf", INSTALLER)
    result = run(system)
    assert result.returncode == 1
    assert "cannot be found" in result.stderr


def test_unknown_system_is_told_the_names(system):
    result = run(system)
    assert result.returncode == 1
    assert "This system lacks: curl" in result.stderr


def table():
    """Return {program, library or plugin: (its packages on Debian, those on Fedora)}."""
    text = SCRIPT.read_text().partition("<<'END'\n")[2].partition("\nEND\n")[0]
    found = {}
    for line in text.splitlines()[1:]:
        _, _, name, debian, fedora = line.split()
        assert name not in found, f"{name} is there twice"
        found[name] = debian, fedora
    return found


def test_each_distribution_has_it():
    """Both lists name the same tools; one that is in one list only would be missing on the other system."""
    name = re.compile(r"[a-z0-9][a-z0-9+.-]+(,[a-z0-9][a-z0-9+.-]+)*")
    for tool, (debian, fedora) in table().items():
        assert name.fullmatch(debian), tool
        assert name.fullmatch(fedora) or (fedora == "-" and tool in DEBIAN_ONLY), tool


def test_what_tests_look_for_is_installed():
    """A test that skips where a program is missing says so of a program that `make check` does not bring."""
    asked = re.compile(r'which\("([a-z0-9_.-]+)"\)')
    names = {name for path in (ROOT / "test").rglob("*_test.py") for name in asked.findall(path.read_text())}
    assert names, "nothing is found any more"
    assert names - EVERYWHERE - OPTIONAL <= {*table(), "chromium-browser"}
