"""The two commands, as a user runs them, against an engine whose daemon is real."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
from fakes.engine import PASSWORD
from fakes.waiting import DEADLINE

from ovirt_imageio.client import cli
from ovirt_imageio.client.engine import hosts
from ovirt_imageio.qemu import img

DATA = bytes(range(256)) * 4096

pytestmark = pytest.mark.storage


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(DATA)
    return str(path)


@pytest.fixture
def upload(login, image):
    return ["upload-disk", *login, "-s", "big disks", image]


def only(things):
    """Return the only one."""
    [thing] = things.values()
    return thing


def test_upload(engine, upload, capsys):
    assert cli.main([*upload, "-o", "json", "-f", "raw"]) == 0
    disk = only(engine.disks)
    assert engine.path(disk["id"]).read_bytes() == DATA
    assert (disk["name"], disk["description"], disk["format"]) == ("image", "Uploaded by ovirt-img", "raw")
    transfer = only(engine.transfers)
    assert (transfer["direction"], transfer["format"], transfer["timeout_policy"]) == ("upload", "raw", "cancel")
    assert [name for name in engine.asked if not name.startswith("get_")] == [
        *("log_in", "add_disk", "add_transfer", "finalize")
    ]
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(dict.fromkeys(record["description"] for record in records[:-1])) == [
        *("inspecting image", "creating disk", "creating transfer", "uploading image", "finalizing transfer"),
        "upload completed",
    ]


def test_upload_to_an_engine_that_takes_its_time(engine, upload):
    engine.statuses = ["locked", "ok"]
    engine.phases = ["initializing", "transferring"]
    engine.final_phases = ["finalizing_success", "finished_success"]
    assert cli.main([*upload, "-q"]) == 0
    assert engine.asked[1:] == [
        *("add_disk", "get_disk", "get_disk", "add_transfer", "get_transfer", "get_transfer"),
        *("finalize", "get_transfer", "get_transfer"),
    ]


def test_upload_qcow2(engine, login, image, tmp_path):
    path = str(tmp_path / "disk.v1.qcow2")
    img.convert(image, "raw", path, "qcow2")
    disk_id = "0d4b4dcd-6f41-4a4e-a6a2-6f9f0a3f9c11"
    named = ["--disk-id", disk_id.replace("-", "").upper(), "-d", 'a "new" <disk>']
    assert cli.main(["upload-disk", *login, *named, "-s", "data", path]) == 0
    disk = only(engine.disks)
    assert engine.path(disk_id).read_bytes() == DATA
    assert (disk["name"], disk["format"], disk["backup"]) == ("disk.v1", "cow", "incremental")
    assert int(disk["initial_size"]) > len(DATA)
    assert disk["description"] == 'a "new" <disk>'


def test_download(engine, login, tmp_path, capsys):
    disk_id = engine.add_image(DATA)
    path = tmp_path / "copy.raw"
    command = ["download-disk", *login, "-f", "raw", disk_id, str(path)]
    assert cli.main(command) == 0
    assert path.read_bytes() == DATA
    assert engine.asked[-2:] == ["finalize", "get_transfer"]
    assert capsys.readouterr() == ("", "")
    # What is there already is overwritten, unless ...
    assert cli.main([*command, "-q"]) == 0
    engine.asked.clear()
    assert cli.main([*command, "-q", "--keep"]) == 1
    assert capsys.readouterr().err == f"ovirt-img: {path} exists already\n"
    assert engine.asked == []


# The fake SDK has no sessions.
@pytest.mark.parametrize("sdk", ["real"], indirect=True)
def test_session_is_lost(engine, login, tmp_path):
    disk_id = engine.add_image(DATA)
    engine.on["get_transfer"] = engine.tokens.clear
    path = tmp_path / "copy.raw"
    assert cli.main(["download-disk", *login, "-f", "raw", disk_id, str(path)]) == 0
    assert path.read_bytes() == DATA
    assert engine.asked.count("log_in") > 1


def test_this_host_is_preferred(engine, upload, tmp_path, monkeypatch):
    path = tmp_path / "vdsm.id"
    path.write_text("hardware-1\n")
    monkeypatch.setattr(hosts, "HARDWARE_ID", path)
    assert cli.main(upload) == 0
    assert only(engine.transfers)["host"]["id"] == engine.hosts["hardware-1"]
    assert engine.searches[0] == 'storage.name="big disks"'


REFUSALS = {
    "add_disk": "Cannot add a disk on storage domain 'big disks': No",
    "get_disk": "Cannot add disk ID: No",
    "add_transfer": "Cannot start the transfer of disk ID: No",
    "get_transfer": "Cannot start the transfer of disk ID: No",
    "finalize": "Cannot finalize the transfer of disk ID: No",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_upload_is_refused(engine, upload, capsys, name):
    engine.refuse(name, 409, "[No]")
    disks = []
    engine.on["get_disk"] = lambda: disks.extend(engine.disks)
    assert cli.main([*upload, "-q"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "ovirt-img: " + REFUSALS[name].replace("ID", disks[0] if disks else "ID")
    assert engine.disks == {}
    assert all(transfer["phases"] == ["finished_failure"] for transfer in engine.transfers.values()) or (
        name == "get_transfer" and "cancel" in engine.asked
    )


def test_missing_sdk(engine, login, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ovirtsdk4", None)
    # It is not even looked for.
    (tmp_path / "password").unlink()
    disk_id = engine.add_image(DATA)
    assert cli.main(["download-disk", *login, "-q", disk_id, str(tmp_path / "copy")]) == 1
    assert "install the package python3-ovirt-engine-sdk4" in capsys.readouterr().err


def test_wrong_password(engine, login, image, tmp_path, capsys, caplog):
    (tmp_path / "password").write_text("wr0ng-pa55")
    with caplog.at_level(logging.DEBUG):
        assert cli.main(["upload-disk", *login, "-q", "--log-level", "debug", "-s", "data", image]) == 1
    said = capsys.readouterr().err
    last = said.splitlines()[-1]
    assert last.startswith("ovirt-img: Cannot log in: the engine refuses the user: ")
    assert "Cannot authenticate user" in last
    assert "wr0ng-pa55" not in said + caplog.text
    assert engine.asked == ["log_in"]


def test_domain_with_blanks_and_quotes(engine, login, image):
    name = "my \"new\" disks & 'others'"
    engine.domains[name] = "d0"
    assert cli.main(["upload-disk", *login, "-q", "-s", name, image]) == 0
    assert only(engine.disks)["storage_domains"] == [{"id": "d0"}]


def test_unknown_domain(engine, login, image, capsys):
    assert cli.main(["upload-disk", *login, "-q", "-s", 'the "other"', image]) == 1
    assert capsys.readouterr().err == (
        "ovirt-img: Cannot add a disk on storage domain 'the \"other\"': "
        "Cannot add Virtual Disk. Storage Domain doesn't exist.\n"
    )


def test_unknown_disk(engine, login, tmp_path, capsys):
    disk_id = "0d4b4dcd-6f41-4a4e-a6a2-6f9f0a3f9c11"
    path = tmp_path / "copy"
    assert cli.main(["download-disk", *login, "-q", disk_id, str(path)]) == 1
    assert capsys.readouterr().err == f"ovirt-img: Cannot find disk {disk_id}: Entity not found\n"
    assert not path.exists()


def test_locked_disk(engine, login, tmp_path, capsys):
    disk_id = engine.add_image(DATA)
    engine.disks[disk_id]["statuses"] = ["locked"]
    assert cli.main(["download-disk", *login, "-q", disk_id, str(tmp_path / "copy")]) == 1
    assert "The disk is locked. Try again in a few minutes." in capsys.readouterr().err


def test_illegal_disk(engine, upload, capsys):
    engine.statuses = ["illegal"]
    assert cli.main([*upload, "-q"]) == 1
    assert "could not make disk" in capsys.readouterr().err
    assert engine.disks == {}


@pytest.mark.parametrize("phase", ["finished_failure", "paused_system"])
def test_transfer_does_not_start(engine, upload, capsys, phase):
    engine.phases = [phase]
    assert cli.main([*upload, "-q"]) == 1
    assert f"did not start, it is {phase.replace('_', ' ')}" in capsys.readouterr().err
    assert "cancel" in engine.asked
    assert engine.disks == {}


def test_finalizing_fails(engine, upload, capsys):
    engine.final_phases = ["finished_failure"]
    assert cli.main([*upload, "-q"]) == 1
    assert "could not finalize the transfer" in capsys.readouterr().err
    # What the engine has verified, it deals with.
    assert "cancel" not in engine.asked
    assert "remove_disk" not in engine.asked


@pytest.mark.parametrize("status", ["ok", "illegal"])
def test_old_engine_forgets_the_transfer(engine, upload, capsys, status):
    def forget():
        only(engine.disks)["statuses"] = [status]
        engine.on["get_transfer"] = engine.transfers.clear

    engine.on["finalize"] = forget
    assert cli.main([*upload, "-q"]) == (0 if status == "ok" else 1)


def test_copy_fails(engine, upload, capsys):
    def shrink():
        disk = only(engine.disks)
        disk["size"] = len(DATA) // 2

    engine.on["add_transfer"] = shrink
    assert cli.main([*upload, "-q"]) == 1
    assert "The source has 1048576 bytes, but the destination only 524288" in capsys.readouterr().err
    assert "cancel" in engine.asked
    assert engine.disks == {}


def test_destination_cannot_be_written(engine, login, tmp_path, capsys):
    disk_id = engine.add_image(DATA)
    assert cli.main(["download-disk", *login, "-q", disk_id, str(tmp_path / "none" / "copy")]) == 1
    # A disk that was only read is finalized.
    assert "finalize" in engine.asked
    assert "cancel" not in engine.asked
    assert only(engine.transfers)["phases"] == ["finished_success"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("name", ["add_disk", "get_disk", "add_transfer", "get_transfer", "finalize"])
def test_interrupt(engine, upload, capsys, name, number, status):
    engine.on[name] = lambda: engine.on.pop(name) and os.kill(os.getpid(), number)
    assert cli.main([*upload, "-q"]) == status
    if name == "finalize":
        # The engine has all of the disk.
        assert engine.path(only(engine.disks)["id"]).read_bytes() == DATA
        assert "cancel" not in engine.asked
    else:
        assert engine.disks == {}
        assert all(transfer["phases"] == ["finished_failure"] for transfer in engine.transfers.values())
        assert ("cancel" in engine.asked) == bool(engine.transfers)


def test_interrupt_of_a_copy(engine, upload, image, monkeypatch):
    def interrupt(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("ovirt_imageio.client.engine.commands.api.upload", interrupt)
    assert cli.main([*upload, "-q"]) == 130
    assert "cancel" in engine.asked
    assert engine.disks == {}


WAITS = {"creating disk": ("statuses", "locked"), "creating transfer": ("phases", "initializing")}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("phase", WAITS)
@pytest.mark.parametrize("sdk", ["real"], indirect=True)
def test_interrupt_while_the_engine_is_busy(engine, upload, phase, number, status):
    name, state = WAITS[phase]
    setattr(engine, name, [state])
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ovirt_imageio.client.cli", *upload, "-o", "json"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if json.loads(line)["description"] == phase:
                process.send_signal(number)
                break
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == status
    assert said == f"ovirt-img: {'Interrupted' if status == 130 else 'Terminated'}\n"
    assert engine.disks == {}
    assert ("cancel" in engine.asked) == bool(engine.transfers)


def test_password_is_not_shown(engine, upload, capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        assert cli.main([*upload, "--log-level", "debug"]) == 0
    shown = capsys.readouterr()
    everything = shown.out + shown.err + caplog.text
    assert PASSWORD not in everything
    assert all(transfer["ticket"] not in everything for transfer in engine.transfers.values())
