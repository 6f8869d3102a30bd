"""upload, download, backup: what they tell programs and people, and that a rehearsal changes nothing."""

from __future__ import annotations

import pytest
from fakes.origin import DiskOrigin
from real import daemon

from ovirt_imageio.client import cli, records

DATA = bytes(range(256)) * 256
SIZE = len(DATA)

pytestmark = pytest.mark.storage


def test_copies(image, run, check, tmp_path):
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


def test_text(image, capsys, tmp_path):
    with DiskOrigin(DATA) as origin:
        assert cli.main(["download", "--dry-run", origin.url, image]) == 0
        assert capsys.readouterr().out == f"64.00 KiB: would overwrite {image}; nothing was done\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


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
