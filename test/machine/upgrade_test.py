"""The packages for rpm, and their scripts, under a real systemd: on a system that is new to them, and over the release.

Debian's packages are gone afterwards, so these are the last tests. Of Fedora the system has only the place of Python's
packages.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from fakes import oldpackages
from machine.service import UNIT, Service, ask, output_of, run, wait_until

SIZE = 256 * 1024
NAMES = [f"ovirt-imageio-{name}" for name in ("client", "common", "daemon")]
MINE = Path("/etc/ovirt-imageio/conf.d/99-mine.conf")

# A service that runs, and does nothing.
OLD = {
    "/usr/bin/ovirt-imageio": "#!/bin/sh\nexec sleep infinity",
    "/usr/lib/systemd/system/ovirt-imageio.service": "[Service]\nExecStart=/usr/bin/ovirt-imageio",
}


@pytest.fixture(scope="module")
def packages(page):
    """The files of the packages, on a system that was never asked to keep anything but its configuration."""
    run("systemctl", "stop", UNIT)
    output_of("dpkg", "--purge", *NAMES)
    output_of("userdel", "ovirtimg")
    Path("/usr/lib/python3/dist-packages/fedora.pth").write_text("/usr/lib/python3/site-packages\n")
    found = sorted(map(str, Path("/imageio/build/rpm/RPMS/noarch").glob("*.rpm")))
    assert len(found) == len(NAMES)
    return found


def rpm(*arguments):
    output_of("rpm", "--nodeps", *arguments, timeout=300)


def test_new_system(packages):
    """It has the user and the folders, the service works, and leaves nothing but what others wrote."""
    MINE.write_text("# mine\n")
    rpm("--install", *packages)
    assert output_of("getent", "passwd", "ovirtimg").endswith(":/run/ovirt-imageio:/sbin/nologin\n")
    assert output_of("stat", "--format=%a %U %G", "/var/log/ovirt-imageio") == "755 ovirtimg ovirtimg\n"
    # It was of the group with the number of the user that is gone.
    output_of("chgrp", "ovirtimg", "/etc/ovirt-imageio/pki/key.pem")
    service = Service()
    assert service.show("ActiveState") == "inactive"
    assert output_of("systemd-analyze", "verify", "--man=no", UNIT, "ovirt-imageio.socket") == ""
    service.systemctl("start", UNIT)
    assert b"features" in ask(service.connect(), "OPTIONS", "/images/*")
    rpm("--erase", *NAMES)
    assert service.show("ActiveState") == "inactive"
    assert service.show("LoadState") == "not-found"
    assert MINE.exists()
    assert not Path("/var/log/ovirt-imageio").exists()
    assert not Path("/usr/lib/python3/site-packages/ovirt_imageio").exists()


def test_over_the_release(packages, tmp_path):
    """What runs is replaced, and the configuration is kept; from then on upgrades keep the tickets, too."""
    (tmp_path / "old.spec").write_text(oldpackages.spec(OLD))
    output_of("rpmbuild", "-bb", "--nodeps", "--define", f"_topdir {tmp_path}", str(tmp_path / "old.spec"))
    rpm("--install", *map(str, tmp_path.glob("RPMS/*/*.rpm")))
    service = Service()
    service.systemctl("daemon-reload")
    service.systemctl("start", UNIT)
    old = service.pid
    MINE.write_text("[logger_root]\nlevel = DEBUG\n")
    rpm("--upgrade", *packages)
    wait_until(lambda: service.pid not in (0, old), "another daemon")
    wait_until(lambda: service.show("SubState") == "running", "a daemon that serves")
    assert b"features" in ask(service.connect(), "OPTIONS", "/images/*")
    assert MINE.read_text() == "[logger_root]\nlevel = DEBUG\n"
    assert not [path for path in Path(oldpackages.SITE).rglob("*") if path.is_file()]

    disk = Path("/run/disk.raw")
    disk.write_bytes(bytes(SIZE))
    disk.chmod(0o666)
    path = service.add_ticket(f"file://{disk}", SIZE)
    before = service.pid
    rpm("--upgrade", "--replacepkgs", *packages)
    wait_until(lambda: service.pid not in (0, before), "the daemon after the upgrade")
    with contextlib.closing(service.connect_local()) as connection:
        connection.request("GET", path)
        assert connection.getresponse().status == 200
