"""The arguments of the two commands."""

from __future__ import annotations

import pytest

from ovirt_imageio.client import options as arguments

DISK_ID = "0d4b4dcd-6f41-4a4e-a6a2-6f9f0a3f9c11"


def parse(*words):
    parser = arguments.make_parser()
    engine = {"OVIRT_IMG_ENGINE_URL": "https://engine", "OVIRT_IMG_USERNAME": "me"}
    return arguments.parse(parser, words, {"XDG_CONFIG_HOME": "/gone", **engine})


@pytest.mark.parametrize("text", [DISK_ID, DISK_ID.replace("-", ""), DISK_ID.upper()])
def test_disk_id(text):
    options = parse("download-disk", text, "copy")
    assert (options.disk_id, options.format, options.keep) == (DISK_ID, "qcow2", False)


def test_upload():
    options = parse("upload-disk", "-s", "my domain", "--buffer-size", "256K", "--max-workers", "8", __file__)
    assert (options.storage_domain, options.format, options.preallocated) == ("my domain", "qcow2", False)
    assert (options.disk_id, options.name, options.buffer_size, options.max_workers) == (None, None, 256 * 1024, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("download-disk", "1234", "copy"), "'1234' is not the id of a disk"),
        (("download-disk", "-f", "vmdk", DISK_ID, "copy"), "invalid choice: 'vmdk'"),
        (("download-disk", "--max-workers", "9", DISK_ID, "copy"), "'9' is not a number from 1 to 8"),
        (("download-disk", "--buffer-size", "32m", DISK_ID, "copy"), "'32m' is not a size from 64k to 16m"),
        (("download-disk", "--buffer-size", "1x", DISK_ID, "copy"), "1x"),
        (("upload-disk", "-s", "data", "/nowhere"), "'/nowhere' is not a file"),
        (("upload-disk", __file__), "the following arguments are required: -s/--storage-domain"),
        (("upload-dsk", __file__), "did you mean 'upload-disk'?"),
    ],
)
def test_mistake(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse(*words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["upload-disk", "download-disk"])
def test_help(name, capsys):
    with pytest.raises(SystemExit):
        parse(name, "--help")
    said = capsys.readouterr().out
    assert "ovirt-img.conf" in said
