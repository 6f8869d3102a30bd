"""docs/install.md, run as root as it stands, on a system of its own: mounts, network and processes are not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tools.source import ROOT

from docs import pages

NEEDED = ("unshare", "ip", "make", "openssl", "curl", "systemd-sysusers", "systemd-tmpfiles", "/usr/bin/python3")

# Writable layers over what the page changes; all of it goes with the mounts.
SYSTEM = """
mount -t tmpfs tmpfs {layers}
for folder in etc usr var; do
    mkdir -p {layers}/$folder/upper {layers}/$folder/work
    mount -t overlay overlay -o lowerdir=/$folder,upperdir={layers}/$folder/upper,workdir={layers}/$folder/work /$folder
done
mount -t tmpfs tmpfs /run
ip link set lo up
install -m 755 {systemctl} /usr/local/sbin/systemctl
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
cd {copy}
"""

# There is no systemd here: this does what the page asks of it, with the unit that was installed.
SYSTEMCTL = r"""#!/bin/bash
set -euo pipefail
unit=/usr/lib/systemd/system/ovirt-imageio.service
pid=/run/ovirt-imageio.pid
case "$1" in
    enable)
        install -d -m 750 /run/ovirt-imageio
        $(sed -n 's/^ExecStart=//p' $unit) 2>/run/log &
        echo $! >$pid
        until grep -q Ready /run/log; do kill -0 $!; sleep 0.1; done ;;
    reload)
        kill -HUP $(<$pid)
        until grep -q Reloaded /run/log; do sleep 0.1; done ;;
    disable)
        kill $(<$pid)
        until grep -q Stopped /run/log; do sleep 0.1; done ;;
esac
"""


def can_have_a_system() -> bool:
    """Return True if this machine lets us make one."""
    if os.geteuid() or not all(map(shutil.which, NEEDED)):
        return False
    overlay = "mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc"
    probe = f"mount -t tmpfs tmpfs /mnt; mkdir /mnt/u /mnt/w; {overlay}"
    return not subprocess.run(["unshare", "--mount", "--net", "sh", "-ec", probe], capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.storage
@pytest.mark.skipif(not can_have_a_system(), reason=f"needs root, overlays and {', '.join(NEEDED)}")
def test_install(tmp_path):
    found = pages.blocks("docs/install.md", pages.read("docs/install.md"))
    steps = [block.text for block in found if block.language == "sh" and not block.note]
    assert len(steps) == 8
    layers = tmp_path / "layers"
    layers.mkdir()
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    script = SYSTEM.format(layers=layers, systemctl=systemctl, copy=copy_of_the_source(tmp_path)) + "\n".join(steps)
    result = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-euc", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stdout[-3000:]


def copy_of_the_source(folder: Path) -> Path:
    """Copy what is installed: a clone may be where only its owner may look."""
    copy = folder / "clone"
    copy.mkdir()
    for name in ("Makefile", "ovirt_imageio", "daemon", "conf", "data"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    return copy
