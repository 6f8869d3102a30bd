"""restore, as a user runs it: any point of a chain, to new disks of an engine, or to a transfer URL."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys

import pytest
from fakes import ports
from fakes.origin import DiskOrigin
from real import certificates

from ovirt_imageio.client import cli
from ovirt_imageio.client.backup import folder as folders
from ovirt_imageio.client.backup.manifest import DiskCopy, Machine, Manifest, Point
from ovirt_imageio.net.pinned import format_fingerprint
from ovirt_imageio.net.tls import ServerContext
from ovirt_imageio.qemu import img

SIZE = 1024**2

pytestmark = pytest.mark.storage


IDS = [f"{digit * 8}-{digit * 4}-{digit * 4}-{digit * 4}-{digit * 12}" for digit in "ab"]
POINTS = ["20261129T205401Z", "20261130T205401Z", "20261201T205401Z"]


@pytest.fixture
def folder(tmp_path):
    """A folder with three points: two disks, an increment of one, and one of both. Its `contents` are in that order."""
    place = folders.Folder(str(tmp_path / "backups"))
    manifest = Manifest(Machine(IDS[0], "web"))
    with place.locked():
        for number, disks in enumerate([IDS, IDS[:1], IDS]):
            with place.partial(POINTS[number], "backup") as path:
                copies = [make_image(path, manifest, disk_id, number) for disk_id in disks]
                manifest = place.add(manifest, Point(POINTS[number], IDS[0], False, tuple(copies)), path)
    return Folder(tmp_path / "backups", IDS, [[expected(number)] * 2 for number in range(3)])


def make_image(path, manifest, disk_id, number):
    """Make the image of a disk at a point, on top of the last one; return what there is to tell of it."""
    image = path / f"{disk_id}.qcow2"
    below = [point.name for point in manifest.points if point.disk(disk_id)]
    backing = {"backing_file": f"../{below[-1]}/{image.name}", "backing_format": "qcow2"} if below else {}
    img.create(str(image), "qcow2", SIZE, **backing)
    commands = [part for n in range(number + 1) for part in ("-c", f"write -P {n + 1} {n * 128}k 64k")]
    subprocess.run(["qemu-io", "-f", "qcow2", *commands, image], check=True, stdout=subprocess.DEVNULL)
    name = dict(zip(IDS, ["system", "my data"]))[disk_id]
    size, sha256 = image.stat().st_size, folders.digest(image)
    return DiskCopy(disk_id, name, SIZE, "qcow2", True, below[-1] if below else None, size, sha256)


class Folder:
    """What was backed up."""

    def __init__(self, path, ids, contents):
        self.path = str(path)
        self.ids = ids
        self.contents = contents
        self.points = sorted(item.name for item in path.iterdir() if item.is_dir())


def expected(number):
    """Return what the disks have at a point."""
    data = bytearray(SIZE)
    for written in range(number + 1):
        data[written * 131072 : written * 131072 + 65536] = bytes([written + 1]) * 65536
    return bytes(data)


@pytest.fixture
def restore(login, folder, capsys):
    """Restore; return the exit status, and the last record."""

    def run(*arguments):
        status = cli.main(["restore", *login, "-o", "json", *arguments, folder.path])
        return status, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_to_new_disks(engine, folder, restore):
    for number in (0, 2):
        known = set(engine.disks)
        status, record = restore("-s", "big disks", "--point", folder.points[number])
        assert (status, record["type"], record["point"]) == (0, "result", folder.points[number])
        assert {disk["new_id"] for disk in record["disks"]} == set(engine.disks) - known
        for disk, content in zip(record["disks"], folder.contents[number]):
            assert engine.path(disk["new_id"]).read_bytes() == content
            new = engine.disks[disk["new_id"]]
            assert (new["name"], new["format"], str(new["sparse"]).lower()) == (disk["name"], "cow", "true")
    assert all(item["phases"] == ["finished_success"] for item in engine.transfers.values())


def test_one_disk_as_another_kind(engine, folder, restore):
    status, record = restore("-s", "data", "-f", "raw", "--preallocated", "--disk", "my data")
    [disk] = record["disks"]
    assert (status, disk["id"]) == (0, folder.ids[1])
    assert engine.path(disk["new_id"]).read_bytes() == folder.contents[2][1]
    new = engine.disks[disk["new_id"]]
    assert (new["format"], str(new["sparse"]).lower()) == ("raw", "false")


def test_to_a_url(engine, folder, capsys):
    command = ["restore", "-o", "json", "--point", folder.points[1], folder.path]
    with DiskOrigin(bytes(SIZE)) as origin:
        assert cli.main([*command, "--url", origin.url]) == 0
        assert origin.data == folder.contents[1][0]
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["connection"], record["protocol"], record["disks"][0]["new_id"]) == ("tcp", "http", None)
    assert engine.asked == []


def test_to_a_url_known_by_its_certificate(folder, capsys):
    made = certificates.self_signed("restore")
    with open(made.cert_file) as file:
        fingerprint = format_fingerprint(ssl.PEM_cert_to_DER_cert(file.read()))
    command = ["restore", "-o", "json", "--point", folder.points[1], folder.path]
    with DiskOrigin(bytes(SIZE), context=ServerContext(made.cert_file, made.key_file)()) as origin:
        origin.options["tls"] = "kernel"
        assert cli.main([*command, "--url", origin.url, "--fingerprint", "00" * 32]) == 1
        assert origin.data == bytes(SIZE)
        assert cli.main([*command, "--url", origin.url, "--fingerprint", fingerprint]) == 0
        assert origin.data == folder.contents[1][0]
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["connection"], record["tls"]) == ("tls", "kernel")


def test_to_a_url_on_a_proxy(folder, capsys):
    command = ["restore", "-o", "json", "--point", folder.points[1], folder.path]
    with DiskOrigin(bytes(SIZE)) as origin, ports.reserved() as port:
        assert cli.main([*command, "--url", f"http://127.0.0.1:{port}/images/x", "--proxy-url", origin.url]) == 0
        assert origin.data == folder.contents[1][0]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["proxy"]


def test_an_engine_is_not_known_by_its_certificate(capsys):
    engine = ["--engine-url", "https://engine.example.com", "--username", "admin@internal"]
    with pytest.raises(SystemExit) as caught:
        cli.main(["restore", "-s", "data", *engine, "--fingerprint", "00" * 32, "DIR"])
    assert caught.value.code == 2
    assert "--fingerprint goes with --url: an engine is trusted by --cafile" in capsys.readouterr().err


def test_one_url_for_two_disks(folder, capsys):
    assert cli.main(["restore", folder.path, "--url", "https://localhost/images/secret"]) == 1
    assert "expected one of those at this point, as there is one URL: " in capsys.readouterr().err


def test_list(folder, capsys):
    assert cli.main(["restore", "--list", "-o", "json", folder.path]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(item["type"], item["name"], item["mode"]) for item in records] == [
        ("point", folder.points[0], "full"),
        ("point", folder.points[1], "incremental"),
        ("point", folder.points[2], "incremental"),
    ]
    assert cli.main(["restore", "--list", folder.path]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{folder.points[0]}  full"
    assert shown[1].startswith(f"    {folder.ids[0]}  full ")
    assert shown[1].endswith("of 1.00 MiB  system")


def test_language_without_the_letters(folder, tmp_path):
    """In a language of the system that has no letter of a name, the name is shown with escapes."""
    manifest = tmp_path / "backups" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("my data", "Daten für Ü\N{SNOWMAN}"))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "LC_ALL": "C"}
    # As on systems without a C.UTF-8.
    environ |= {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "ovirt_imageio.client.cli", "restore", "--list", folder.path]
    done = subprocess.run(command, env=environ, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[2].endswith(b"  Daten f\\xfcr \\xdc\\u2603")


def test_dry_run(engine, folder, restore, capsys):
    with DiskOrigin(bytes(SIZE)) as origin:
        status, record = restore("--dry-run", "--disk", "system", "--url", origin.url)
        assert origin.data == bytes(SIZE)
    assert (status, record["type"], record["replaces"]) == (0, "plan", f"{origin.url.rpartition('/')[0]}/(ticket)")
    status, record = restore("--dry-run", "-s", "data")
    assert (status, record["replaces"], len(record["disks"])) == (0, None, 2)
    assert engine.asked == []


def test_damaged_backup(engine, folder, restore):
    """Also one that a later point stands on is looked at, and before anything is made."""
    path = f"{folder.path}/{folder.points[0]}/{folder.ids[0]}.qcow2"
    with open(path, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"X")
    status, record = restore("-s", "data", "--point", folder.points[1])
    assert (status, record["message"].split(": ")[0]) == (1, f"{path} is damaged")
    assert engine.asked == []


@pytest.mark.parametrize("backing", ["/etc/hostname", ""])
def test_image_that_stands_on_something_else(engine, folder, restore, tmp_path, backing):
    """Though the manifest tells the checksum of it: a stranger may have made both."""
    path = tmp_path / "backups" / folder.points[1] / f"{folder.ids[0]}.qcow2"
    subprocess.run(["qemu-img", "rebase", "-u", "-b", backing, "-F", "raw", path], check=True)
    manifest = tmp_path / "backups" / "manifest.json"
    document = json.loads(manifest.read_text())
    document["points"][1]["disks"][0] |= {"bytes": path.stat().st_size, "sha256": folders.digest(path)}
    manifest.write_text(json.dumps(document))
    status, record = restore("-s", "data", "--disk", "system")
    assert status == 1
    assert "which is not what the manifest tells" in record["message"]
    assert engine.asked == []


def test_second_disk_fails(engine, folder, restore, caplog):
    def refuse():
        if engine.asked.count("add_disk") == 2:
            engine.refuse("add_disk", 409, "[The storage domain is full]")

    engine.on["add_disk"] = refuse
    status, record = restore("-s", "data")
    assert (status, record["message"].rpartition(": ")[2]) == (1, "The storage domain is full")
    assert f"Disk {folder.ids[0]} is restored, as disk " in caplog.text


WRONG = [
    (["--point", "yesterday"], "Invalid point 'yesterday': expected one of "),
    (["--disk", "other"], "Invalid disk 'other': expected a disk of the backup: "),
]


@pytest.mark.parametrize(("arguments", "text"), WRONG)
def test_no_such_thing(folder, restore, arguments, text):
    status, record = restore("-s", "data", *arguments)
    assert status == 1
    assert record["message"].startswith(text)


def test_no_backup(login, tmp_path, capsys):
    assert cli.main(["restore", *login, "-q", "-s", "data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("expected one that backup-vm made\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--engine-url", "https://engine", "--username", "me", "DIR"],
            "say where to: --storage-domain NAME, or --url URL",
        ),
        (["--dry-run", "--url", "u", "-s", "data", "DIR"], "not allowed with argument"),
        (["-s", "data", "DIR"], "the following arguments are required: --engine-url, --username"),
        (["-s", "data", "--url", "u", "DIR"], "not allowed with argument"),
    ],
)
def test_wrong_arguments(arguments, text, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["restore", *arguments])
    assert text in capsys.readouterr().err
