"""Disks, keys and sockets that the daemon gets to under the limits of its unit, and those that it does not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from machine.service import LOCAL, UNIT, ask, connect_unix, output_of, run, wait_until

from docs import pages

MiB = 1024**2
SIZE = 4 * MiB
DISK = "/dev/vdc"


@pytest.fixture(scope="module")
def groups():
    """The groups of virtual machines, of which the daemon is a member, as on a host."""
    run("groupadd", "--system", "qemu")
    run("groupadd", "--system", "kvm")
    output_of("usermod", "--append", "--groups", "qemu,kvm", "ovirtimg")
    # A process keeps the groups that it began with.
    run("systemctl", "stop", UNIT)


def use(connection, path):
    """Read, write, zero, flush and list the disk behind a ticket."""
    data = os.urandom(MiB)
    zero = json.dumps({"op": "zero", "offset": 0, "size": 4096, "flush": True}).encode()
    with contextlib.closing(connection):
        for method, suffix, body in (
            ("PUT", "", data),
            ("PATCH", "", zero),
            ("PATCH", "", b'{"op": "flush"}'),
            ("GET", "/extents", None),
            ("GET", "", None),
        ):
            connection.request(method, path + suffix, body)
            response = connection.getresponse()
            content = response.read()
            assert response.status == 200, (method, suffix, content)
    assert content[:MiB] == bytes(4096) + data[4096:]


def test_image_of_the_group_qemu(groups, running):
    folder = Path("/var/lib/images")
    folder.mkdir(exist_ok=True)
    disk = folder / "disk.raw"
    disk.write_bytes(bytes(SIZE))
    output_of("chown", "root:qemu", str(disk))
    disk.chmod(0o660)
    use(running.connect(), running.add_ticket(f"file://{disk}", SIZE))


def test_block_device_of_the_group_kvm(groups, running):
    output_of("chown", "root:kvm", DISK)
    os.chmod(DISK, 0o660)
    use(running.connect(), running.add_ticket(f"file://{DISK}", SIZE))


def test_disk_of_somebody_else(groups, running):
    """Root started the daemon, but it is root no more."""
    disk = Path("/var/lib/images/secret.raw")
    disk.parent.mkdir(exist_ok=True)
    disk.write_bytes(bytes(SIZE))
    disk.chmod(0o600)
    connection = running.connect()
    with contextlib.closing(connection):
        connection.request("GET", running.add_ticket(f"file://{disk}", SIZE))
        response = connection.getresponse()
        assert (response.status, b"Permission denied" in response.read()) == (500, True)


def test_nbd_server_behind_a_path(groups, running):
    folder = Path("/run/nbd")
    folder.mkdir(exist_ok=True)
    path, image = folder / "sock", folder / "disk.qcow2"
    output_of("qemu-img", "create", "-q", "-f", "qcow2", str(image), str(SIZE))
    command = ["qemu-nbd", "--persistent", "--shared=8", f"--socket={path}", "--format=qcow2", str(image)]
    with subprocess.Popen(command) as server:
        try:
            wait_until(path.exists, "an NBD server")
            output_of("chown", "root:qemu", str(path))
            path.chmod(0o660)
            use(running.connect(), running.add_ticket(f"nbd:unix:{path}", SIZE))
        finally:
            server.terminate()


@pytest.mark.parametrize("address", [LOCAL, "/run/ovirt-imageio/local.sock"])
def test_local_listener(groups, service, address):
    """Abstract, and with a file."""
    spelled = address.replace("\0", "@")
    service.configure(f"[local]\nsocket = {spelled}\n")
    service.systemctl("start", UNIT)
    disk = Path("/run/disk.raw")
    disk.write_bytes(bytes(SIZE))
    output_of("chown", "ovirtimg:", str(disk))
    use(connect_unix(address), service.add_ticket(f"file://{disk}", SIZE))


def credentials():
    """Return what docs/configuration.md says of keys that systemd hands over: the drop-in, and the configuration."""
    blocks = [block.text for block in pages.blocks("docs/configuration.md", pages.read("docs/configuration.md"))]
    (unit,) = [text for text in blocks if "LoadCredential=" in text]
    (settings,) = [text for text in blocks if "$CREDENTIALS_DIRECTORY/key.pem" in text]
    return unit.replace("/etc/pki/ovirt-imageio", "/etc/ovirt-imageio/pki"), settings


@pytest.fixture
def key():
    """The private key, which only root can read until the end of the test."""
    path = Path("/etc/ovirt-imageio/pki/key.pem")
    before = path.stat()
    os.chown(path, 0, 0)
    path.chmod(0o600)
    yield path
    os.chown(path, before.st_uid, before.st_gid)
    path.chmod(stat.S_IMODE(before.st_mode))


def test_keys_that_systemd_hands_over(groups, service, key):
    """The daemon is never root, and never had a capability."""
    unit, settings = credentials()
    service.drop_in(unit)
    service.configure(settings)
    service.systemctl("start", UNIT)
    status = Path(f"/proc/{service.pid}/status").read_text()
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE), status
    assert "Running as" not in service.journal.text()
    assert b"features" in ask(service.connect(), "OPTIONS", "/images/*")


def test_key_that_is_missing(groups, service, key):
    """systemd tells that it cannot hand it over, but not which; of what it hands over, the daemon tells."""
    unit, settings = credentials()
    service.drop_in(unit.replace("pki/key.pem", "pki/lost.pem"))
    service.configure(settings)
    assert run("systemctl", "start", UNIT).returncode != 0
    assert service.show("ExecMainStatus") == "243"
    assert "CREDENTIALS" in service.journal.text()
    service.drop_in(unit.replace("LoadCredential=key.pem", "LoadCredential=another.pem"))
    assert run("systemctl", "start", UNIT).returncode != 0
    assert "key.pem" in service.show("StatusText")
