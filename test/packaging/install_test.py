"""`pip install .` gives the package, its metadata and the three programs, without network and compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tools import source

from ovirt_imageio import version

# Installing takes some seconds, or minutes where the machine is busy.
pytestmark = [pytest.mark.storage, pytest.mark.slow, pytest.mark.timeout(600)]

# What is needed to build, and nothing that happens to lie around.
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "ovirt_imageio")


def run(*command, cwd):
    # Isolated from the environment of the tests: what is found, was installed.
    result = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "DEPRECATION" not in result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def bin(tmp_path_factory):
    """The programs of an environment into which the project was installed."""
    tmp_path = tmp_path_factory.mktemp("install")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (source.ROOT / name).is_dir() else shutil.copy
        copy(source.ROOT / name, checkout / name)
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", tmp_path, checkout, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    # One wheel for every Python and machine.
    assert wheel.name == f"ovirt_imageio-{version.__version__}-py3-none-any.whl"
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *offline, wheel, cwd=tmp_path)
    return python.parent


def test_package_is_found(bin, tmp_path):
    code = "import ovirt_imageio, importlib.metadata as m; print(ovirt_imageio.__version__, m.version('ovirt-imageio'))"
    assert run(bin / "python", "-I", "-c", code, cwd=tmp_path).split() == [version.__version__] * 2


def test_every_module_is_installed(bin, tmp_path):
    code = "import ovirt_imageio; print(ovirt_imageio.__path__[0])"
    found = source.read(Path(run(bin / "python", "-I", "-c", code, cwd=tmp_path).strip()))
    assert found.keys() == source.read(source.PACKAGE).keys()


@pytest.mark.parametrize("program", ["ovirt-imageio", "ovirt-imageioctl", "ovirt-img"])
def test_program_starts(bin, tmp_path, program):
    assert program in run(bin / program, "--help", cwd=tmp_path)
