"""info, measure, checksum, verify, extents: what they tell programs and people."""

from __future__ import annotations

import os

import pytest
from fakes.origin import DiskOrigin
from real import daemon

from ovirt_imageio.client import cli, records
from ovirt_imageio.qemu import img

DATA = bytes(range(256)) * 256
SIZE = len(DATA)

pytestmark = pytest.mark.storage


def test_looking(image, run, check):
    for command, arguments in {"info": [], "measure": ["-f", "raw"], "checksum": [], "extents": []}.items():
        status, found = run(command, *arguments, image)
        assert status == 0
        check(found[-1], "result", records.RESULTS)
    assert found == [
        {"type": "extent", "start": 0, "length": SIZE, "zero": False, "hole": False},
        {"type": "result", "command": "extents", "extents": 1, "size": SIZE},
    ]


def test_extents_of_nothing(run):
    with DiskOrigin(b"") as origin:
        status, found = run("extents", origin.url)
    assert (status, found) == (0, [{"type": "result", "command": "extents", "extents": 0, "size": 0}])


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


def test_verify(running, image, run, check, tmp_path, capsys):
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


def test_names_in_another_language(run, tmp_path):
    """A name that is not text in the language of the system is still the name of a file."""
    path = os.path.join(os.fsencode(tmp_path), b"d\xefsk \xff.qcow2")
    img.create(os.fsdecode(path), "qcow2", SIZE)
    status, found = run("info", os.fsdecode(path))
    assert (status, found[-1]["info"]["virtual-size"]) == (0, SIZE)
