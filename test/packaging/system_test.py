"""The files of data/, as the programs that read them see them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree
from pathlib import Path

import pytest
from fakes.waiting import wait_until
from tools import source

from ovirt_imageio import config
from ovirt_imageio.exports import exports
from ovirt_imageio.service import activation, cli, notify

DATA = source.ROOT / "data"
DEFAULTS = config.Config()


class Unit(configparser.RawConfigParser):
    """A unit file; keys keep their case, and the last of several equal ones wins."""

    optionxform = staticmethod(str)

    def __init__(self):
        super().__init__(strict=False)
        self.read(DATA / "ovirt-imageio.service")


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)


@pytest.mark.storage
def test_systemd_accepts_the_unit(tmp_path):
    # systemd wants to see the programs: give it one that is everywhere.
    text = (DATA / "ovirt-imageio.service").read_text()
    unit = tmp_path / "ovirt-imageio.service"
    unit.write_text(text.replace("/usr/bin/ovirt-imageio", "/bin/true").replace("/bin/kill", "/bin/true"))
    result = run("systemd-analyze", "verify", "--man=no", str(unit))
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.storage
def test_systemd_finds_a_planted_fault(tmp_path):
    unit = tmp_path / "ovirt-imageio.service"
    unit.write_text((DATA / "ovirt-imageio.service").read_text().replace("Type=notify", "Type=nonsense"))
    assert "nonsense" in run("systemd-analyze", "verify", "--man=no", str(unit)).stdout


@pytest.mark.storage
def test_systemd_accepts_the_socket_unit(tmp_path):
    for name in ("ovirt-imageio.service", "ovirt-imageio.socket"):
        (tmp_path / name).write_text((DATA / name).read_text().replace("/usr/bin/ovirt-imageio", "/bin/true"))
    result = run("systemd-analyze", "verify", "--man=no", str(tmp_path / "ovirt-imageio.socket"))
    assert (result.returncode, result.stdout) == (0, "")


def test_socket_unit_is_what_we_would_open():
    unit = configparser.RawConfigParser()
    unit.read(DATA / "ovirt-imageio.socket")
    assert unit["Socket"]["ListenStream"] == str(DEFAULTS.remote.port)
    assert unit["Socket"]["FileDescriptorName"] in activation.NAMES


def test_unit_is_what_hosts_rely_on():
    service = Unit()["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"] == "/usr/bin/ovirt-imageio"
    assert (service["KillSignal"], service["KillMode"], service["Restart"]) == ("SIGTERM", "mixed", "always")
    assert (service["User"], service["Group"]) == ("root", "root")
    assert f"/run/{service['RuntimeDirectory']}" == DEFAULTS.daemon.run_dir
    assert service["RuntimeDirectoryMode"] == "0750"
    assert Unit()["Install"]["WantedBy"] == "multi-user.target"


def test_a_restart_keeps_sockets_and_tickets():
    service = Unit()["Service"]
    # Hosts have up to some ten addresses; beside these, four listeners and the tickets.
    assert int(service["FileDescriptorStoreMax"]) >= 32
    # The control socket has a file there.
    assert service["RuntimeDirectoryPreserve"] == "restart"
    # The default, which is to forget everything with `systemctl stop`, is what is promised.
    assert "FileDescriptorStorePreserve" not in service


def test_systemd_restarts_what_passes_only():
    service = Unit()["Service"]
    assert int(service["RestartPreventExitStatus"]) == cli.MISCONFIGURED
    assert int(service["RestartSec"]) > 2
    # Else the fifth start within ten seconds is the last one, also when a person asks for it.
    assert Unit()["Unit"]["StartLimitIntervalSec"] == "0"


@pytest.mark.storage
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do what systemd does")
def test_reload_reaches_a_daemon_that_is_another_user():
    service = Unit()["Service"]
    prefix, command = re.fullmatch(r"([-+!@:]*)(/.*)", service["ExecReload"]).groups()
    limits = ["--bounding-set", ",".join(["-all", *service["CapabilityBoundingSet"].lower().split()])]
    limits[1] = limits[1].replace("cap_", "+")
    setpriv = ["setpriv", *([] if "+" in prefix else [*limits, "--no-new-privs"])]
    # What nohup started ignores the signal, and hands that on.
    other = ["env", "--default-signal=HUP", "setpriv", "--reuid=65534", "--clear-groups", "--", "sleep", "60"]
    with subprocess.Popen(other) as process:
        try:
            wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
            done = run(*setpriv, "--", *command.replace("$MAINPID", str(process.pid)).split())
            assert (done.returncode, done.stdout) == (0, "")
            assert process.wait(30) == -signal.SIGHUP
        finally:
            process.kill()


def test_systemd_waits_longer_than_we_drain():
    """And than the servers of images whose storage hangs need until they are given up: else the tickets are lost."""
    seconds = DEFAULTS.daemon.drain_timeout + exports.END_SECONDS + notify.PATIENTLY
    assert int(Unit()["Service"]["TimeoutStopSec"]) > seconds + 5


@pytest.mark.storage
def test_sysusers_makes_our_user(tmp_path):
    (tmp_path / "etc").mkdir()
    result = run("systemd-sysusers", f"--root={tmp_path}", str(DATA / "sysusers.conf"))
    assert result.returncode == 0, result.stdout
    user = (tmp_path / "etc/passwd").read_text().strip().split(":")
    group = (tmp_path / "etc/group").read_text().strip().split(":")
    assert (user[0], group[0]) == (DEFAULTS.daemon.user_name, DEFAULTS.daemon.group_name)
    assert user[5:] == [DEFAULTS.daemon.run_dir, "/sbin/nologin"]


@pytest.mark.storage
def test_tmpfiles_makes_the_log_folder(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("ovirtimg:x:0:0::/:/sbin/nologin\n")
    (tmp_path / "etc/group").write_text("ovirtimg:x:0:\n")
    result = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", str(DATA / "tmpfiles.conf"))
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "var/log/ovirt-imageio").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    "name, port", [("ovirt-imageio", DEFAULTS.remote.port), ("ovirt-imageio-proxy", DEFAULTS.remote.port + 1)]
)
def test_firewall_opens_one_port(name, port):
    service = xml.etree.ElementTree.parse(DATA / "firewalld" / f"{name}.xml").getroot()
    assert service.tag == "service"
    assert [found.attrib for found in service.iter("port")] == [{"protocol": "tcp", "port": str(port)}]
    assert service.findtext("short")
    assert service.findtext("description")


def test_container_serves_where_clients_look():
    folder = DATA / "container"
    assert f"EXPOSE {DEFAULTS.remote.port}" in (folder / "Containerfile").read_text().splitlines()
    ports = re.findall(r"localhost:(\d+)/", (folder / "health").read_text())
    assert set(map(int, ports)) == {DEFAULTS.remote.port}


def test_container_configuration_is_understood(tmp_path):
    (tmp_path / "conf.d").mkdir()
    shutil.copy(DATA / "container/50-container.conf", tmp_path / "conf.d")
    loaded = config.load(tmp_path, tmp_path / "no-vendor")
    assert loaded.warnings == ()
    assert not loaded.daemon.drop_privileges
