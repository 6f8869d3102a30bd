"""The limits in the unit: what the daemon does in an ordinary life is allowed, and little else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest
from real import certificates, daemon
from tools import source

from ovirt_imageio.qemu import img
from ovirt_imageio.qemu.nbd import QemuNbd

pytestmark = pytest.mark.storage

UNIT = source.ROOT / "data" / "ovirt-imageio.service"

# The exposure that systemd computes, from 0.0 to 10.0.
EXPOSED_AT_MOST = 3.0

MiB = 1024**2


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)


def test_exposure():
    said = run("systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)).stdout
    found = re.search(r"Overall exposure level for ovirt-imageio.service: ([0-9.]+)", said)
    if not found:
        pytest.skip("this systemd-analyze cannot look at a file")
    assert float(found[1]) <= EXPOSED_AT_MOST, said


def allowed_calls():
    """Return the system calls that the unit allows, as systemd.exec(5) says."""
    groups: dict[str, set[str]] = {}
    for line in run("systemd-analyze", "--no-pager", "syscall-filter").stdout.splitlines():
        name = line.partition("#")[0].strip()
        if line.startswith("@"):
            members = groups[name] = set()
        elif name:
            members.add(name)

    def expand(name):
        return {call for member in groups[name] for call in expand(member)} if name.startswith("@") else {name}

    # It always allows what is needed to end, and to ask what time it is.
    allowed = expand("@default") | {"execve"}
    for line in re.findall("^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        calls = {call for name in line.lstrip("~").split() for call in expand(name)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return allowed


@pytest.fixture
def folder():
    """A folder that the user of the daemon gets to, unlike those of the test runner."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_system_calls(folder):
    certificate = certificates.certificate()
    copies = {name: folder / name for name in ("cert_file", "key_file", "ca_file")}
    for name, path in copies.items():
        path.write_bytes(Path(getattr(certificate, name)).read_bytes())
        path.chmod(0o644)
    tls = certificates.Certificate(*(str(copies[name]) for name in ("cert_file", "key_file", "ca_file")))
    text = "[daemon]\ndrop_privileges = yes\nuser_name = nobody\ngroup_name = daemon\n"
    text += "[metrics]\nenable = yes\nhost = localhost\nport = 0\n"
    trace = folder / "trace"
    wrapper = ["strace", "-f", "-qq", "-o", str(trace), "-e", "signal=none"]
    with daemon.running(folder, text, tls=tls, wrapper=wrapper) as own:
        live(own, folder)
        pid = int(re.search(r"Starting .* pid=(\d+)", own.log())[1])
        os.kill(pid, signal.SIGHUP)
        own.wait_log("Reloaded")
        os.kill(pid, signal.SIGTERM)
        assert own.process.wait(daemon.DEADLINE) == 0
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(errors="replace"), re.MULTILINE))
    assert {"setresuid", "openat", "accept4", "fdatasync", "sendto"} & used
    assert used - allowed_calls() == set()


def live(own, folder):
    """Do what clients do, with each kind of disk, over each listener."""
    raw, qcow2 = folder / "disk.raw", folder / "disk.qcow2"
    raw.write_bytes(os.urandom(MiB) + bytes(3 * MiB))
    img.create(str(qcow2), "qcow2", 4 * MiB)
    raw.chmod(0o666)
    with QemuNbd(str(qcow2), "qcow2", listen=str(folder / "nbd.sock")) as qemu:
        os.chmod(folder / "nbd.sock", 0o666)
        file = own.add_ticket(url=f"file://{raw}", size=4 * MiB, sparse=True)
        nbd = own.add_ticket(url=qemu.url, size=4 * MiB, sparse=True)
        for url in (file, nbd, own.add_ticket(url=file, size=4 * MiB)):
            use(own, url)
    assert b"imageio_transfers" in own.control("GET", "/metrics")[1]
    with urllib.request.urlopen(f"http://{own.addresses['metrics']}/health") as response:
        assert response.status == 200
    assert own.control("DELETE", "/tickets/" + file.rpartition("/")[2])[0] == 204


def use(own, url):
    """Read, write, zero, flush and compare a disk, over HTTPS and over the Unix socket."""
    zero = json.dumps({"op": "zero", "offset": 0, "size": MiB, "flush": True}).encode()
    requests = [
        ("GET", "", None),
        ("PUT", "", os.urandom(2 * MiB)),
        ("PATCH", "", zero),
        ("PATCH", "", b'{"op": "flush"}'),
        ("GET", "/extents", None),
        ("GET", "/checksum", None),
        ("OPTIONS", "", None),
    ]
    path = "/images/" + url.rpartition("/")[2]
    for connection in (own.connect(), own.connect_unix(own.local_socket)):
        for method, suffix, body in requests:
            connection.request(method, path + suffix, body)
            response = connection.getresponse()
            response.read()
            assert response.status == 200, (method, suffix, response.status)
        connection.close()


def test_planted_call_is_found():
    """The list is read as systemd means it."""
    allowed = allowed_calls()
    assert {"setresuid", "chown", "splice", "accept4", "openat"} <= allowed
    assert not {"mount", "reboot", "settimeofday", "init_module", "ptrace", "setpriority"} & allowed
