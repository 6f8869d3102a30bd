"""The worked example of docs/proxy.md, run as it stands, but for the ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from fakes import ports

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.storage,
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl"),
]


@pytest.fixture
def reserved_ports():
    """Two ports that nobody else can get, as texts."""
    with ports.reserved() as one, ports.reserved() as two:
        yield str(one), str(two)


def test_example(tmp_path, reserved_ports):
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/proxy.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    host, proxy = reserved_ports
    script = "".join(blocks).replace("54322", host).replace("54323", proxy)
    launcher = tmp_path / "bin" / "ovirt-imageio"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ovirt_imageio.service.cli "$@"\n')
    launcher.chmod(0o755)
    folder = tmp_path / "demo"
    folder.mkdir()
    result = subprocess.run(
        # Whatever fails, the daemons end.
        ["bash", "-ec", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + script],
        cwd=folder,
        env={**os.environ, "PATH": f"{launcher.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "hello disk"
    assert (folder / "disk.raw").read_bytes()[:11] == b"hello disk\0"
