"""backup-vm, as a user runs it: an engine whose daemon is real, and disks that are, with real bitmaps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from fakes.waiting import DEADLINE, wait_until
from real import loop

from ovirt_imageio import client
from ovirt_imageio.client import cli

SIZE = 4 * 1024**2

pytestmark = pytest.mark.storage


@pytest.fixture
def disk(engine):
    """A disk with something on it."""
    disk_id = engine.add_qcow2(SIZE, "system")
    engine.write(disk_id, "write -P 1 0 1m", "write -P 2 2m 64k")
    return disk_id


@pytest.fixture
def vm(engine, disk):
    """A virtual machine with that disk."""
    return engine.add_machine("web", disk)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "backups"


@pytest.fixture
def backup(login, folder, capsys):
    """Back up `web`; return the exit status, and the last record."""

    def run(*arguments, vm="web"):
        status = cli.main(["backup-vm", *login, "-o", "json", *arguments, vm, str(folder)])
        lines = capsys.readouterr().out.splitlines()
        return status, json.loads(lines[-1]) if lines else None

    return run


def content(path):
    """Return what is in an image, as the checksum of it."""
    return client.checksum(path)["checksum"]


def read_manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def grow(engine, disk):
    """Let a disk be twice as large."""
    engine.disks[disk]["size"] = 2 * SIZE
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", engine.path(disk), str(2 * SIZE)], check=True)


def is_at_rest(engine):
    """Is nothing left in the engine?"""
    transfers = all(item["phases"][0].startswith("finished") for item in engine.transfers.values())
    return transfers and all(item["phases"] == ["succeeded"] for item in engine.backups.values())


def test_full_and_incremental(engine, vm, disk, folder, backup, tmp_path):
    sunday = content(engine.path(disk))
    status, full = backup()
    assert (status, full["type"], full["mode"]) == (0, "result", "full")
    grow(engine, disk)
    engine.write(disk, "write -P 3 1m 64k", "write -z 2m 64k", f"write -P 4 {SIZE} 64k")
    monday = content(engine.path(disk))
    status, more = backup("--incremental", "--verify")
    assert (status, more["mode"], more["disks"][0]["mode"]) == (0, "incremental", "incremental")
    assert more["disks"][0]["bytes"] < full["disks"][0]["bytes"]
    assert [record["disks"][0]["size"] for record in (full, more)] == [SIZE, 2 * SIZE]
    images = [folder / record["point"] / f"{disk}.qcow2" for record in (full, more)]
    assert [content(path) for path in images] == [sunday, monday]
    assert is_at_rest(engine)
    document = read_manifest(folder)
    assert [point["name"] for point in document["points"]] == [full["point"], more["point"]]
    assert document["points"][1]["disks"][0]["base"] == full["point"]
    sums = subprocess.run(["sha256sum", *images], capture_output=True, text=True, check=True).stdout.split()[::2]
    assert sums == [point["disks"][0]["sha256"] for point in document["points"]]
    assert sorted(os.listdir(folder)) == [".lock", full["point"], more["point"], "manifest.json"]
    # The folder can be moved.
    folder.rename(tmp_path / "elsewhere")
    assert content(tmp_path / "elsewhere" / more["point"] / images[1].name) == monday


NAMES = ['my "quoted" disk', "../../\x9b2J\u202e; rm -rf *\nÜ"]


def test_names(engine, folder, backup, login, capsys):
    ids = [engine.add_qcow2(65536, name) for name in [*NAMES, NAMES[0]]]
    engine.add_machine("web", *ids)
    status, record = backup()
    assert status == 0
    assert [disk["name"] for disk in record["disks"]] == [*NAMES, NAMES[0]]
    assert sorted(os.listdir(folder / record["point"])) == sorted(f"{number}.qcow2" for number in ids)
    assert cli.main(["restore", "--list", str(folder)]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    # One of a name that two have.
    status, record = backup("--disk", NAMES[0])
    assert status == 1
    assert record["message"].startswith(f"Invalid disk {NAMES[0]!r}: expected one disk, by its id: {ids[0]} (")
    status, record = backup("--disk", ids[-1], "--disk", NAMES[1])
    assert [disk["id"] for disk in record["disks"]] == [ids[-1], ids[1]]


def test_some_disks(engine, folder, backup):
    one, two = (engine.add_qcow2(65536, name) for name in ("one", "two"))
    engine.add_machine("web", one, two)
    assert backup()[0] == 0
    assert backup("--incremental", "--disk", "one")[0] == 0
    # The engine knows no changes of the other one since the checkpoint of the last backup.
    status, record = backup("--incremental")
    assert (status, [disk["mode"] for disk in record["disks"]]) == (0, ["incremental", "full"])
    assert backup("--disk", "three")[1]["message"].startswith("Invalid disk 'three': expected a disk of 'web': ")


@pytest.mark.parametrize("tells_modes", [True, False])
def test_raw_disks_are_always_full(engine, disk, backup, tells_modes):
    engine.tells_modes = tells_modes
    raw = engine.add_image(b"x" * 65536)
    engine.disks[raw]["format"] = "raw"
    engine.add_machine("web", disk, raw)
    assert backup()[0] == 0
    status, record = backup("--incremental")
    assert (status, [item["mode"] for item in record["disks"]]) == (0, ["incremental", "full"])


def test_without_checkpoint(engine, backup, caplog):
    raw = engine.add_image(b"x" * 65536)
    engine.disks[raw]["format"] = "raw"
    engine.add_machine("web", raw)
    status, record = backup()
    assert (status, record["checkpoint"]) == (0, None)
    assert "keeps no checkpoint" in caplog.text
    status, record = backup("--incremental")
    assert (status, record["message"].split(": ")[1]) == (1, "expected a backup with a checkpoint in it")
    assert backup("--incremental", "--full-if-lost")[1]["mode"] == "full"


def test_disks_that_are_no_images(engine, backup):
    lun = engine.add_image(b"")
    engine.disks[lun]["storage_type"] = "lun"
    engine.add_machine("web", lun)
    assert backup()[1]["message"] == "Virtual machine 'web' has no disk that can be backed up"


@pytest.mark.parametrize("loss", ["forgotten", "invalid"])
def test_lost_checkpoint(engine, vm, folder, backup, caplog, loss):
    backup()
    if loss == "forgotten":
        engine.checkpoints.clear()
    else:
        for checkpoint in engine.checkpoints.values():
            checkpoint["state"] = "invalid"
    engine.asked.clear()
    status, record = backup("--incremental")
    assert status == 1
    assert record["message"].startswith("The engine has lost the checkpoint of ")
    assert record["message"].endswith("with --full-if-lost the backup becomes a full one")
    assert "add_backup" not in engine.asked
    status, record = backup("--incremental", "--full-if-lost")
    assert (status, record["mode"], record["disks"][0]["mode"]) == (0, "full", "full")
    assert "the backup becomes a full one" in caplog.text
    # From here on there can be increments again.
    assert backup("--incremental")[1]["mode"] == "incremental"


def test_quiesced(engine, vm, folder, backup):
    backup()
    backup("--quiesce")
    assert engine.queries.count({"require_consistency": "true"}) == 1
    assert [point["quiesced"] for point in read_manifest(folder)["points"]] == [False, True]
    engine.refuse("add_backup", 409, "[Cannot backup VM: the guest agent does not freeze it]")
    assert backup("--quiesce") == (
        1,
        {
            "type": "error",
            "command": "backup-vm",
            "message": "Cannot start a backup of 'web': Cannot backup VM: the guest agent does not freeze it",
            "status": 1,
        },
    )


def test_estimate(engine, vm, disk, folder, backup, login, capsys):
    status, record = backup("--estimate")
    assert (status, record["type"], record["mode"], record["leftovers"]) == (0, "plan", "full", [])
    assert record["bytes_at_most"] == record["disks"][0]["bytes_at_most"] <= SIZE
    assert record["bytes_free"] > 0
    assert not folder.exists()
    backup()
    engine.write(disk, "write 0 64k")
    backup("--incremental")
    (folder / "20200101T000000Z.partial").mkdir()
    engine.asked.clear()
    assert cli.main(["backup-vm", *login, "--estimate", "--incremental", vm, str(folder)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"{disk}  incremental  at most ")
    assert "; the last increment had " in shown[0]
    assert shown[1].startswith("At most ")
    assert shown[2] == f"Would delete {folder}/20200101T000000Z.partial, which an unfinished backup left"
    assert not {"add_backup", "add_transfer"} & set(engine.asked)
    assert (folder / "20200101T000000Z.partial").exists()


REFUSALS = ["list_vms", "list_attachments", "get_disk", "add_backup", "get_backup", "add_transfer", "get_transfer"]


@pytest.mark.parametrize("name", [*REFUSALS, "finalize"])
def test_engine_refuses(engine, vm, disk, folder, backup, name):
    backup()
    before = (folder / "manifest.json").read_bytes(), sorted(os.listdir(folder))
    engine.refuse(name, 409, "[No]")
    status, record = backup()
    assert (status, record["type"]) == (1, "error")
    assert record["message"].endswith(": No")
    assert ((folder / "manifest.json").read_bytes(), sorted(os.listdir(folder))) == before
    # What it refuses always, it cannot end either; but it was asked to.
    asked_to_end = {"get_backup": "finalize_backup", "get_transfer": "cancel", "finalize": "finalize_backup"}
    assert name not in asked_to_end or asked_to_end[name] in engine.asked


def test_engine_cannot_list_modes(engine, vm, disk, folder, backup):
    backup()
    engine.refuse("list_backup_disks", 500, "[No]")
    status, record = backup("--incremental")
    assert (status, record["message"]) == (1, "Cannot list the disks of the backup of 'web': No")
    assert is_at_rest(engine)
    assert len(read_manifest(folder)["points"]) == 1


@pytest.mark.parametrize("phase", ["failed", "finalizing"])
def test_backup_does_not_start(engine, vm, folder, backup, phase):
    engine.backup_phases = [phase]
    assert f"did not start, it is {phase}" in backup()[1]["message"]
    assert os.listdir(folder) == [".lock"]


def test_backup_does_not_end(engine, vm, folder, backup):
    engine.final_backup_phases = ["failed"]
    status, record = backup()
    assert status == 1
    [point] = read_manifest(folder)["points"]
    assert record["message"].endswith(f"its events tell why. The copy is complete, as {folder / point['name']}")


def test_another_backup_runs(engine, vm, folder, backup):
    engine.on["list_vms"] = lambda: engine.backups.update(
        {"other": {"id": "other", "vm": vm, "phases": ["ready"], "disks": {}}}
    )
    assert "The VM is during a backup." in backup()[1]["message"]


def test_killed_backup_is_cleaned_up(engine, vm, folder, backup, caplog):
    """A program that was killed leaves a backup in the engine, which permits no other one."""
    backup()
    left = folder / "20200101T000000Z.partial"
    left.mkdir()
    killed = engine.ask("add_backup", vm, {"disks": []})["id"]
    (left / "backup-id").write_text(killed)
    status, _ = backup("--incremental")
    assert status == 0
    assert is_at_rest(engine)
    assert not left.exists()
    assert f"Deleting {left}: the backup has not finished" in caplog.text
    assert f"Ended backup {killed}, which was interrupted" in caplog.text


# The fake SDK has no sessions.
@pytest.mark.parametrize("sdk", ["real"], indirect=True)
@pytest.mark.parametrize("name", ["get_backup", "get_transfer", "finalize", "finalize_backup"])
def test_session_is_lost(engine, vm, backup, name):
    engine.on[name] = engine.tokens.clear
    assert backup()[0] == 0
    assert engine.asked.count("log_in") > 1
    assert is_at_rest(engine)


@pytest.mark.parametrize("sdk", ["fake"], indirect=True)
@pytest.mark.parametrize("name", ["get_backup", "get_transfer", "finalize", "finalize_backup"])
def test_interrupt(engine, vm, folder, backup, name):
    backup()

    def interrupt():
        del engine.on[name]
        signal.raise_signal(signal.SIGINT)

    engine.on[name] = interrupt
    status, record = backup()
    assert (status, record["message"], record["status"]) == (130, "Interrupted", 130)
    assert is_at_rest(engine)
    # Once all is there, it stays.
    count = 2 if name == "finalize_backup" else 1
    assert len(read_manifest(folder)["points"]) == count
    assert len(os.listdir(folder)) == count + 2


@pytest.mark.parametrize("sdk", ["real"], indirect=True)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal(engine, vm, folder, login, number, status):
    engine.backup_phases = ["starting"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ovirt_imageio.client.cli", "backup-vm", *login, "-o", "json", "web", str(folder)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: "get_backup" in engine.asked)
        process.send_signal(number)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == status
    assert is_at_rest(engine)
    assert os.listdir(folder) == [".lock"]


@pytest.mark.skipif(not loop.available(), reason="making a file system takes root and loop devices")
def test_folder_is_full(engine, disk, vm, login, tmp_path, capsys):
    with loop.mounted(tmp_path, "ext4", size=8 * 1024**2) as place:
        folder = place / "backups"
        command = ["backup-vm", *login, "-o", "json", "web", str(folder)]
        assert cli.main(command) == 0
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        grow(engine, disk)
        # All but a tenth of it fits.
        engine.write(disk, f"write -P 7 0 {free * 10 // 9 // 65536 * 65536}")
        before = (folder / "manifest.json").read_bytes()
        capsys.readouterr()
        assert cli.main([*command[:-2], "--incremental", *command[-2:]]) == 1
        record = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert "No space left on device" in record["message"]
        assert (folder / "manifest.json").read_bytes() == before
        assert len(os.listdir(folder)) == 3
    assert is_at_rest(engine)


@pytest.mark.parametrize("path", ["/sys/backups", "/dev/null/backups"])
def test_folder_is_read_only(engine, vm, login, capsys, path):
    assert cli.main(["backup-vm", *login, "-q", "web", path]) == 1
    assert capsys.readouterr().err.startswith(f"ovirt-img: Storage failed to write to {path}: ")
    assert engine.asked == []


def test_missing_qemu_img(engine, vm, folder, backup, monkeypatch):
    monkeypatch.setenv("PATH", "/gone")
    status, record = backup()
    assert (status, record["message"]) == (
        1,
        "Cannot use images: cannot run qemu-img: No such file or directory; install it (qemu-utils or qemu-img)",
    )
    assert engine.asked == []


def test_folder_of_another_machine(engine, vm, backup):
    backup()
    engine.add_machine("mail", engine.add_qcow2(65536))
    assert backup(vm="mail")[1]["message"].endswith("expected one for mail: it has backups of web")


MACHINES = [
    ("Web", "The engine knows no virtual machine 'Web'"),
    ("w*", "The engine knows no virtual machine 'w*'"),
    ("twin", "Invalid virtual machine 'twin': expected the id of one of those with this name: "),
    ('"', "Invalid virtual machine '\"': expected an id: the engine cannot search for a name with quotes"),
    ("\x1b[2J", "The engine knows no virtual machine '\\x1b[2J'"),
    (
        "0d4b4dcd-6f41-4a4e-a6a2-6f9f0a3f9c11",
        "Cannot find virtual machine 0d4b4dcd-6f41-4a4e-a6a2-6f9f0a3f9c11: Entity",
    ),
]


@pytest.mark.parametrize(("name", "text"), MACHINES, ids=ascii)
def test_no_such_machine(engine, vm, disk, backup, name, text):
    for _ in range(2):
        engine.add_machine("twin", disk)
    status, record = backup(vm=name)
    assert status == 1
    assert record["message"].startswith(text)
