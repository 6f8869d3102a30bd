"""The targets of the Makefile that write files, and the list that `make` prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import venv
from pathlib import Path

import pytest
from tools import source

from ovirt_imageio import config

pytestmark = pytest.mark.storage

# The environment is there already, or these tests would not run: -o keeps make from making it again.
MAKE = ("make", "-o", "system-run", "-o", ".venv/programs")


def make(*arguments, cwd=source.ROOT):
    # A make that runs the tests has told its children of itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run((*MAKE, *arguments), cwd=cwd, env=env, capture_output=True, text=True, timeout=100)


def test_alone_lists_all_targets():
    text = (source.ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE)
    listed = [line.split()[0] for line in make().stdout.splitlines()]
    assert listed == targets
    assert {"check", "run", "bench", "storage", "clean-storage", "dist", "rpm", "install", "install-dev"} < set(listed)


def test_development_role_of_a_host(tmp_path):
    result = make("generated-files", f"DEVELOPMENT={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"Now run: .venv/bin/ovirt-imageio -c {tmp_path}\n")
    loaded = config.load(tmp_path, tmp_path / "no-vendor")
    config.check(loaded)
    assert loaded.warnings == ()
    for path in (loaded.tls.key_file, loaded.tls.cert_file, loaded.tls.ca_file):
        assert path.startswith(str(tmp_path))
        subprocess.run(["openssl", "x509" if "cert" in path else "pkey", "-noout", "-in", path], check=True, timeout=30)


def test_development_role_of_a_proxy(tmp_path):
    result = make("install-dev", f"ENGINE_PREFIX={tmp_path}")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "etc/ovirt-imageio"
    loaded = config.load(folder, tmp_path / "no-vendor")
    config.check(loaded)
    assert loaded.warnings == ()
    assert loaded.remote.port == 54323
    assert loaded.tls.key_file == f"{tmp_path}/etc/pki/ovirt-engine/keys/apache.key.nopass"
    assert loaded.daemon.run_dir == f"{tmp_path}/var/run/ovirt-imageio"
    assert (tmp_path / "bin/ovirt-imageio").is_symlink()


def test_development_role_needs_a_place(tmp_path):
    """This is told before anything is built."""
    result = make("install-dev", f"VENV={tmp_path}")
    assert result.returncode != 0
    assert "make install-dev ENGINE_PREFIX=DIR" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_archive_has_what_packages_are_made_of(tmp_path):
    """Also one that is made of an unpacked one, without git, in which something was built already."""
    tracked = subprocess.run(["git", "ls-files"], cwd=source.ROOT, capture_output=True, text=True, timeout=30)
    if tracked.returncode:
        pytest.skip("this is no clone of a repository")
    names = {name for name in tracked.stdout.splitlines() if (source.ROOT / name).is_file()}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.ROOT / name, tmp_path / name)
    for name in ("build/deb/x.deb", "dist/old", ".venv-3.9/bin/python", ".cache/x", "ovirt_imageio/__pycache__/x.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    result = make("dist", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (archive,) = tmp_path.glob("dist/*.tar.gz")
    with tarfile.open(archive) as found:
        files = {entry.name for entry in found if not entry.isdir()}
    folder = archive.name[: -len(".tar.gz")]
    assert files == {f"{folder}/{name}" for name in names}
    needed = {"ovirt-imageio.spec", "data/debian/rules", "data/container/Containerfile", "test/tools/container"}
    assert needed <= names


def test_programs_and_their_package_find_each_other(tmp_path):
    """The interpreter of the programs looks where the package is, and systemd starts the program that was installed."""
    venv.create(tmp_path / "prefix", symlinks=True)
    python = tmp_path / "prefix/bin/python"
    root = tmp_path / "root"
    result = make("install", f"DESTDIR={root}", f"PREFIX={tmp_path}/prefix", f"PYTHON={python}")
    assert result.returncode == 0, result.stderr
    program = Path(f"{root}{tmp_path}/prefix/bin/ovirt-imageio")
    assert program.read_text().startswith(f"#!{python}\n")
    code = "import sys; print(*[path for path in sys.path if path.endswith('-packages')])"
    (folder,) = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30).stdout.split()
    assert Path(f"{root}{folder}/ovirt_imageio/version.py").exists()
    unit = Path(f"{root}{tmp_path}/prefix/lib/systemd/system/ovirt-imageio.service").read_text()
    assert f"ExecStart={tmp_path}/prefix/bin/ovirt-imageio\n" in unit
    assert (root / "usr/lib/ovirt-imageio/conf.d").is_dir()


def test_a_package_that_no_program_would_find_is_not_installed(tmp_path):
    result = make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/elsewhere")
    assert result.returncode != 0
    assert "looks for packages nowhere below /opt/elsewhere/lib" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/etc/debian_version"), reason="this is not Debian")
@pytest.mark.parametrize("prefix, folder", [("/usr", "/usr/lib/python3/"), ("/usr/local", "/usr/local/lib/python3.")])
def test_debian_has_two_places(tmp_path, prefix, folder):
    result = make("install", f"DESTDIR={tmp_path}", f"PREFIX={prefix}", "PYTHON=/usr/bin/python3")
    assert result.returncode == 0, result.stderr
    (found,) = tmp_path.rglob("ovirt_imageio/version.py")
    assert str(found).startswith(f"{tmp_path}{folder}")
    assert "/dist-packages/" in str(found)
