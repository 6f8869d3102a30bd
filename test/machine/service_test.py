"""The service as administrators run it, under a real systemd."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import threading
from pathlib import Path

import pytest
from machine.service import CERTIFICATE, CONTROL, DEADLINE, UNIT, ask, output_of, run, slow_download, wait_until

MiB = 1024**2
SIZE = 16 * MiB


@pytest.fixture
def disk(running):
    """A disk that the daemon may use; returns its ticket."""
    path = Path("/var/lib/disks/test.raw")
    path.write_bytes(os.urandom(SIZE))
    output_of("chown", "ovirtimg:", str(path))
    yield running.add_ticket(f"file://{path}", SIZE)
    path.unlink()


def content():
    return Path("/var/lib/disks/test.raw").read_bytes()


def peer_certificate():
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("localhost", 54322), timeout=DEADLINE))


def new_certificate(folder=CERTIFICATE.parent):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    output_of(*command, "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem")
    output_of("chown", "root:ovirtimg", f"{folder}/key.pem")
    output_of("chmod", "640", f"{folder}/key.pem")


def test_page_can_be_followed(page):
    """Each command of it succeeded, and it ends with a service that is stopped and disabled."""
    assert len(page.steps) == 8
    assert (page.enabled, page.active) == ("disabled", "inactive")


def test_systemd_finds_nothing_to_complain_of(service):
    assert output_of("systemd-analyze", "verify", "--man=no", UNIT, "ovirt-imageio.socket") == ""


def test_exposure(running):
    said = output_of("systemd-analyze", "security", "--no-pager", UNIT)
    found = re.search(r"Overall exposure level for ovirt-imageio.service: ([0-9.]+)", said)
    assert float(found[1]) <= 3.0, said


def test_start_is_over_when_it_serves(service):
    """`systemctl start` returned, so clients can connect."""
    running = service
    running.systemctl("start", UNIT)
    assert running.show("Type") == "notify"
    assert running.show("SubState") == "running"
    assert b"features" in ask(running.connect_local(), "OPTIONS", "/images/*")
    wait_until(lambda: "Active transfers: " in output_of("systemctl", "status", UNIT), "what it does in its status")


def test_user_and_folders(running):
    """The daemon is nobody special, and what the packages and systemd made for it is its own."""
    status = dict(
        line.split(":\t") for line in Path(f"/proc/{running.pid}/status").read_text().splitlines() if "\t" in line
    )
    user, group = (output_of("id", option, "ovirtimg").strip() for option in ("-u", "-g"))
    assert (status["Uid"].split(), status["Gid"].split()) == ([user] * 4, [group] * 4)
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0] * 4
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for path, mode in (("/run/ovirt-imageio", "750"), ("/var/log/ovirt-imageio", "755"), (CONTROL, "660")):
        assert output_of("stat", "--format=%a %U %G", path).split() == [mode, "ovirtimg", "ovirtimg"]


def test_stop_drains(running, disk):
    """A download that runs finishes, and `systemctl status` tells what is waited for."""
    with slow_download(running.connect(), disk) as response:
        first = response.read(1)
        running.systemctl("stop", "--no-block", UNIT)
        wait_until(
            lambda: running.show("StatusText").startswith("Waiting up to"), "a status that tells what it waits for"
        )
        assert running.show("ActiveState") == "deactivating"
        assert first + response.read() == content()
    wait_until(lambda: running.show("ActiveState") == "inactive", "stopped")
    assert running.show("Result") == "success"


def test_daemon_tells_that_it_stops(running, disk):
    """systemd knows, also when it did not ask for it."""
    with slow_download(running.connect(), disk) as response:
        first = response.read(1)
        os.kill(running.pid, signal.SIGTERM)
        wait_until(lambda: running.show("SubState") == "stop-sigterm", "the state of a service that ends")
        assert first + response.read() == content()
    wait_until(lambda: running.show("SubState") == "running", "another daemon")


def test_reload_under_a_transfer(running, disk):
    """It uses another certificate and another log level; the transfer does not notice."""
    before = peer_certificate()
    connection = running.connect()
    with slow_download(connection, disk) as response:
        first = response.read(1)
        new_certificate()
        running.configure("[logger_root]\nlevel = DEBUG\n")
        running.systemctl("reload", UNIT)
        running.journal.wait("Reloaded")
        after = peer_certificate()
        assert first + response.read() == content()
    assert before != after == ssl.PEM_cert_to_DER_cert(CERTIFICATE.read_text())
    ask(running.connect(), "GET", disk, Range="bytes=0-9")
    running.journal.wait("READ size=10 ")


def test_journal_has_fields(running, disk):
    """What happened to a transfer, and to a connection, is found without searching in texts."""
    path = running.add_ticket("file:///var/lib/disks/test.raw", SIZE, transfer_id="move-7")
    ask(running.connect(), "PATCH", path, b'{"op": "flush"}')

    def about(field):
        return [entry["MESSAGE"] for entry in running.journal.entries(field)]

    wait_until(lambda: any("FLUSH" in line for line in about("TRANSFER=move-7")), "what happened to the transfer")
    assert about("TRANSFER=move-7")[0].startswith("ADD")
    opened = [entry for entry in running.journal.entries() if entry["MESSAGE"].startswith("OPEN")][-1]["CONNECTION"]
    wait_until(lambda: any(line.startswith("CLOSE") for line in about(f"CONNECTION={opened}")), "the same of it")
    assert path.rpartition("/")[2] not in output_of("journalctl", "--output=export", f"--unit={UNIT}")


def test_daemon_that_hangs_is_restarted(service):
    service.drop_in("[Service]\nWatchdogSec=10\nTimeoutStopSec=5\n")
    service.systemctl("start", UNIT)
    before = service.pid
    os.kill(before, signal.SIGSTOP)
    wait_until(lambda: service.pid not in (0, before), "another daemon")
    wait_until(lambda: service.show("SubState") == "running", "a daemon that serves")
    assert b"features" in ask(service.connect_local(), "OPTIONS", "/images/*")
    service.journal.wait("Watchdog timeout")


def test_daemon_that_crashes_is_restarted(running, disk):
    """It serves again by itself, and has forgotten all tickets."""
    before = running.pid
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: running.show("SubState") == "running" and running.pid != before, "another daemon")
    connection = running.connect()
    connection.request("GET", disk)
    assert connection.getresponse().status == 403
    connection.close()


def test_mistake_in_the_configuration(service):
    """It is told where people look, and not tried again."""
    service.configure("[remote]\nport = many\n")
    assert run("systemctl", "start", UNIT).returncode != 0
    assert (service.show("ActiveState"), service.show("ExecMainStatus"), service.show("NRestarts")) == (
        "failed",
        "78",
        "0",
    )
    said = run("systemctl", "status", "--no-pager", UNIT).stdout
    assert re.search(r"Status: .*\[remote\] port = 'many' in .*/60-test\.conf", said), said
    service.configure("")
    service.systemctl("start", UNIT)
    assert service.show("SubState") == "running"


def test_port_that_is_in_use(service):
    """What may pass is tried again, until it works."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", 54322))
        other.listen()
        service.drop_in("[Service]\nRestartSec=1\n")
        assert run("systemctl", "start", UNIT).returncode != 0
        wait_until(lambda: int(service.show("NRestarts")) >= 2, "tried twice")
        service.journal.wait("54322.*in use")
    wait_until(lambda: service.show("SubState") == "running", "serving")


def test_reload_of_a_mistake(running, disk):
    """What is wrong in a file does not end what works."""
    running.configure("[remote]\nport = many\n")
    running.systemctl("reload", UNIT)
    running.journal.wait("Cannot reload the configuration, keeping the old one: .*many")
    assert ask(running.connect(), "GET", disk, Range="bytes=0-9") == content()[:10]


def test_connections_wait_at_the_socket_of_systemd(service):
    """A connection that comes before the daemon waits until it serves."""
    service.listen()
    assert service.show("ActiveState") == "inactive"
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(service.connect(), "OPTIONS", "/images/*")))
    thread.start()
    thread.join(DEADLINE)
    assert [b"features" in answer for answer in answers] == [True]
    assert service.show("SubState") == "running"


def test_socket_unit_with_another_port(service):
    """The unit wins, and the journal tells."""
    service.configure("[remote]\nport = 54399\n")
    service.listen()
    service.systemctl("start", UNIT)
    assert b"features" in ask(service.connect(), "OPTIONS", "/images/*")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", 54399), DEADLINE)
    service.journal.wait(r"54322.*54399|54399.*54322")
