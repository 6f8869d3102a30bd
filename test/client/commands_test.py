"""What programs read: a record a line, the last one tells how it ended, which way, and with which keys."""

from __future__ import annotations

import json
import os

import pytest
from fakes.origin import DiskOrigin
from real import daemon

from ovirt_imageio.client import cli, records
from ovirt_imageio.qemu import img

DATA = bytes(range(256)) * 256
SIZE = len(DATA)

pytestmark = pytest.mark.storage


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.raw"
    path.write_bytes(DATA)
    return str(path)


@pytest.fixture
def run(capsys):
    """Run a command for programs; return the exit status, and all records."""

    def run(command, *arguments):
        status = cli.main([command, "-o", "json", *map(str, arguments)])
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def check(record, kind, table):
    """Compare the keys of a record with what is documented."""
    assert record["type"] == kind
    assert record.keys() == {"type", "command", *table[record["command"]]}


def test_looking(image, run):
    for command, arguments in {"info": [], "measure": ["-f", "raw"], "checksum": [], "extents": []}.items():
        status, found = run(command, *arguments, image)
        assert status == 0
        check(found[-1], "result", records.RESULTS)
    assert found == [
        {"type": "extent", "start": 0, "length": SIZE, "zero": False, "hole": False},
        {"type": "result", "command": "extents", "extents": 1, "size": SIZE},
    ]


@pytest.mark.parametrize(
    ("words", "command", "message"),
    [
        (["uplod", "-o", "json"], None, "did you mean 'upload'?"),
        (["upload", "--output=json", "file"], "upload", "the following arguments are required: URL"),
        (["download", "--output", "json", "--retrys", "1", "u", "f"], "download", "did you mean --retries?"),
        (["download", "-o", "json", "--verify", "u", "-"], "download", "--verify does not work with a stream"),
        (["backup", "-o", "json", "--incremental", "u", "f"], "backup", "--incremental and --backing BASE go together"),
    ],
)
def test_wrong_arguments(capsys, words, command, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    shown = capsys.readouterr()
    # A disk that goes to standard output has it for itself.
    record = json.loads(shown.err.splitlines()[-1] if "-" in words else shown.out)
    assert (record["type"], record["command"], record["status"]) == ("error", command, 2)
    assert message in record["message"]
    assert message in shown.err


def test_extents_of_nothing(run):
    with DiskOrigin(b"") as origin:
        status, found = run("extents", origin.url)
    assert (status, found) == (0, [{"type": "result", "command": "extents", "extents": 0, "size": 0}])


def test_copies(image, run, tmp_path):
    with DiskOrigin(bytes(SIZE)) as origin:
        for arguments in (["upload", image, origin.url], ["download", origin.url, tmp_path / "copy"]):
            for more, kind, table in ([["--dry-run"], "plan", records.PLANS], [[], "result", records.RESULTS]):
                status, found = run(*arguments, *more)
                assert status == 0
                check(found[-1], kind, table)
                assert all(
                    record.keys() <= {"type", *records.OTHERS["progress"]} and record["type"] == "progress"
                    for record in found[:-1]
                )
        assert origin.data == DATA
        assert found[-1]["transferred"] == SIZE
        assert run("download", "--dry-run", origin.url, tmp_path / "copy")[1][-1]["replaces"] == f"{tmp_path}/copy"


def test_dry_run_changes_nothing(image, run, tmp_path):
    path = tmp_path / "there"
    path.write_text("precious")
    with DiskOrigin(bytes(SIZE)) as origin:
        assert run("upload", "--dry-run", image, origin.url)[0] == 0
        assert run("download", "--dry-run", origin.url, path)[0] == 0
        assert origin.data == bytes(SIZE)
    assert path.read_text() == "precious"


def test_dry_run_finds_what_a_run_would(image, run):
    with DiskOrigin(bytes(512)) as origin:
        origin.refusals[("PATCH", "")] = (416, "Out of range", {"Content-Range": "bytes */512"})
        status, found = run("upload", "--dry-run", image, origin.url)
    assert status == 1
    assert found[-1]["message"] == f"The source has {SIZE} bytes, but the destination only 512"
    assert found[-1].keys() == {"type", *records.OTHERS["error"]}


def test_errors(run, tmp_path):
    missing = tmp_path / "missing"
    assert run("info", missing) == (
        1,
        [
            {
                "type": "error",
                "command": "info",
                "message": f"Cannot open the image: there is no {missing}",
                "status": 1,
            }
        ],
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def test_verify(running, image, run, tmp_path, capsys):
    url = running.add_ticket(url=f"file://{image}", size=SIZE, ops=["read"])
    command = ["verify", "--cafile", running.ca_file]
    status, found = run(*command, image, url)
    assert status == 0
    check(found[-1], "result", records.RESULTS)
    assert cli.main([*command, image, url]) == 0
    assert capsys.readouterr().out == f"The same: blake2b {found[-1]['checksum']}\n"
    other = tmp_path / "other"
    other.write_bytes(DATA[:-1] + b"X")
    status, found = run(*command, "-f", "raw", other, url)
    assert (status, found[-1]["status"]) == (1, 1)
    assert found[-1]["message"].startswith("The copy differs: blake2b is ")


def test_ways_to_a_daemon(running, tmp_path, run):
    """By its Unix socket; over TLS where that is not offered; and by NBD when the data are in small pieces."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.write(b"x" * 65536)
        file.truncate(16 * 1024**2)
    url = running.add_ticket(url=f"file://{path}", size=16 * 1024**2)
    trust = ["--cafile", running.ca_file]
    _, found = run("download", *trust, url, tmp_path / "one")
    assert [found[-1][key] for key in records.COPY[2:]] == ["unix", None, "nbd", False, "full"]
    proxied = ["--proxy-url", url, "https://localhost:1/images/x"]
    _, found = run("download", *trust, "-f", "raw", *proxied, tmp_path / "two")
    assert [found[-1][key] for key in records.COPY[2:]] == ["unix", None, "nbd", True, "full"]
    with DiskOrigin(bytes(SIZE)) as origin:
        _, found = run("download", origin.url, tmp_path / "three")
    assert [found[-1][key] for key in records.COPY[2:]] == ["tcp", None, "http", False, "full"]


def test_text(image, capsys, tmp_path):
    with DiskOrigin(DATA) as origin:
        assert cli.main(["download", "--dry-run", origin.url, image]) == 0
        assert capsys.readouterr().out == f"64.00 KiB: would overwrite {image}; nothing was done\n"


def test_names_in_another_language(run, tmp_path):
    """A name that is not text in the language of the system is still the name of a file."""
    path = os.path.join(os.fsencode(tmp_path), b"d\xefsk \xff.qcow2")
    img.create(os.fsdecode(path), "qcow2", SIZE)
    status, found = run("info", os.fsdecode(path))
    assert (status, found[-1]["info"]["virtual-size"]) == (0, SIZE)
