"""What `packages` says and does on systems that lack something, or nothing."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from tools import source

pytestmark = pytest.mark.storage

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
        [source.ROOT / "test/tools/packages", "run"],
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
    # Now everything is there: nobody is asked.
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
