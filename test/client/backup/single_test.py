"""`backup URL FILE`, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
from fakes.origin import DiskOrigin

from ovirt_imageio import client
from ovirt_imageio.client import cli
from ovirt_imageio.client.backup.single import publish
from ovirt_imageio.qemu import img

SIZE = 1024**2
MONDAY = b"1" * 65536 + bytes(SIZE - 65536)
TUESDAY = MONDAY[:131072] + b"2" * 65536 + MONDAY[196608:]

pytestmark = pytest.mark.storage


@pytest.fixture
def backup(capsys):
    """Back up; return the exit status, and the last record."""

    def run(*arguments):
        status = cli.main(["backup", "-o", "json", *map(str, arguments)])
        return status, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def content(path):
    return client.checksum(path)["checksum"]


def raw(tmp_path, data):
    path = tmp_path / "expected.raw"
    path.write_bytes(data)
    return path


def test_full_and_incremental(tmp_path, backup):
    (tmp_path / "new").mkdir()
    monday, tuesday = tmp_path / "monday.qcow2", tmp_path / "new" / "tuesday.qcow2"
    with DiskOrigin(MONDAY) as origin:
        status, record = backup(origin.url, monday)
    assert (status, record["mode"], record["base"], record["size"]) == (0, "full", None, SIZE)
    assert record["sha256"] == hashlib.sha256(monday.read_bytes()).hexdigest()
    with DiskOrigin(TUESDAY) as origin:
        origin.extents["dirty"] = [
            {"start": start, "length": length, "dirty": dirty, "zero": False}
            for start, length, dirty in [(0, 131072, False), (131072, 65536, True), (196608, SIZE - 196608, False)]
        ]
        status, record = backup("--incremental", "--backing", monday, origin.url, tuesday)
    assert (status, record["mode"], record["base"]) == (0, "incremental", str(monday))
    assert img.info(str(tuesday))["backing-filename"] == "../monday.qcow2"
    (tmp_path / "moved").mkdir()
    for path in (monday, tuesday.parent):
        path.rename(tmp_path / "moved" / path.name)
    assert content(tmp_path / "moved" / "new" / "tuesday.qcow2") == content(raw(tmp_path, TUESDAY))
    assert os.listdir(tmp_path / "moved" / "new") == ["tuesday.qcow2"]


def test_is_not_overwritten(tmp_path, backup):
    path = tmp_path / "there"
    path.write_text("something else")
    with DiskOrigin(MONDAY) as origin:
        status, record = backup(origin.url, path)
    assert (status, record["message"]) == (1, f"{path} exists already")
    assert path.read_text() == "something else"


def test_what_a_killed_one_left_is_overwritten(tmp_path, backup):
    path = tmp_path / "monday.qcow2"
    (tmp_path / "monday.qcow2.partial").write_bytes(b"half" * 1000)
    with DiskOrigin(MONDAY) as origin:
        assert backup(origin.url, path)[0] == 0
    assert content(path) == content(raw(tmp_path, MONDAY))
    assert not (tmp_path / "monday.qcow2.partial").exists()


def test_name_is_taken_meanwhile(tmp_path):
    partial, path = tmp_path / "disk.partial", tmp_path / "disk"
    partial.write_text("backup")
    path.write_text("something else")
    with pytest.raises(client.ImageExists):
        publish(partial, path)
    assert (partial.read_text(), path.read_text()) == ("backup", "something else")


def test_file_system_without_links(tmp_path):
    # No file system has links to folders.
    (tmp_path / "disk.partial").mkdir()
    publish(tmp_path / "disk.partial", tmp_path / "disk")
    assert os.listdir(tmp_path) == ["disk"]


def test_failure_leaves_nothing(tmp_path, backup):
    with DiskOrigin(MONDAY) as origin:
        origin.refusals[("GET", "")] = (500, "The disk is broken", {})
        status, record = backup("--retries", "0", origin.url, tmp_path / "monday.qcow2")
    assert (status, record["message"]) == (1, "The server answered 500: The disk is broken")
    assert os.listdir(tmp_path) == []


def test_server_does_not_know_what_changed(tmp_path, backup):
    base = tmp_path / "base.qcow2"
    img.create(str(base), "qcow2", SIZE)
    with DiskOrigin(MONDAY) as origin:
        origin.refusals[("GET", "/extents")] = (404, "No dirty extents", {})
        status, _ = backup("--incremental", "--backing", base, origin.url, tmp_path / "new")
    assert (status, os.listdir(tmp_path)) == (1, ["base.qcow2"])


def test_dry_run(tmp_path, backup):
    with DiskOrigin(MONDAY) as origin:
        status, record = backup("--dry-run", origin.url, tmp_path / "new")
    assert (status, record["type"], record["size"], record["replaces"]) == (0, "plan", SIZE, None)
    assert os.listdir(tmp_path) == []


def test_base_is_no_image(tmp_path, backup):
    status, record = backup(
        "--incremental", "--backing", tmp_path / "gone", "https://localhost/images/x", tmp_path / "n"
    )
    assert (status, record["message"]) == (1, f"Cannot open the image: there is no {tmp_path}/gone")


@pytest.mark.parametrize("option", [["--incremental"], ["--backing", "base.qcow2"]])
def test_only_half_of_it(option, backup):
    with pytest.raises(SystemExit, match="2"):
        backup(*option, "https://localhost/images/x", "new")


@pytest.mark.parametrize("folder", ["/sys", "/gone"])
def test_folder_that_cannot_be_written(folder, backup):
    with DiskOrigin(MONDAY) as origin:
        status, record = backup(origin.url, f"{folder}/new.qcow2")
    assert status == 1
    assert record["message"].startswith("Cannot create the image: ")
