"""The targets of the Makefile that write files, and the list that `make` prints."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from tools import source

from ovirt_imageio import config

pytestmark = pytest.mark.storage

# The environment is there already, or these tests would not run: -o keeps make from making it again.
MAKE = ("make", "-o", "system-run", "-o", ".venv/ready")


def make(*arguments):
    # A make that runs the tests has told its children of itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run((*MAKE, *arguments), cwd=source.ROOT, env=env, capture_output=True, text=True, timeout=100)


def test_alone_lists_all_targets():
    text = (source.ROOT / "Makefile").read_text()
    targets = re.findall(r"^\.PHONY: ([a-z-]+)$", text, re.MULTILINE)
    listed = [line.split()[0] for line in make().stdout.splitlines()]
    assert listed == targets
    assert {"check", "run", "bench", "storage", "clean-storage", "dist", "rpm", "install", "install-dev"} < set(listed)


def test_development_role_of_a_host(tmp_path):
    result = make("generated-files", f"DEVELOPMENT={tmp_path}")
    assert result.returncode == 0, result.stderr
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


def test_development_role_needs_a_place():
    result = make("install-dev")
    assert result.returncode != 0
    assert "make install-dev ENGINE_PREFIX=DIR" in result.stderr
