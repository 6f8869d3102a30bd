"""What qemu calls an image; nbd_test and client/local_test show that qemu understands it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from ovirt_imageio import errors
from ovirt_imageio.qemu.node import image_spec, is_block_device, location

FILE = {"driver": "file", "filename": "/disk"}


def spec(*args: Any, **kwargs: Any) -> Any:
    text = image_spec(*args, **kwargs)
    assert text.startswith("json:")
    return json.loads(text[len("json:") :])


@pytest.mark.parametrize(
    ("arguments", "node"),
    [
        ({}, {"file": FILE}),
        ({"format": "raw"}, {"driver": "raw", "file": FILE}),
        ({"format": "qcow2"}, {"driver": "qcow2", "file": FILE}),
        (
            {"format": "qcow2", "offset": 512, "size": 1024},
            {"driver": "qcow2", "file": {"driver": "raw", "offset": 512, "size": 1024, "file": FILE}},
        ),
        ({"format": "raw", "offset": 512}, {"driver": "raw", "offset": 512, "file": FILE}),
        ({"size": 1024}, {"file": {"driver": "raw", "offset": 0, "size": 1024, "file": FILE}}),
        # A raw image has no chain.
        ({"format": "raw", "backing_chain": False}, {"driver": "raw", "file": FILE}),
    ],
)
def test_image(arguments, node):
    assert spec("/disk", **arguments) == node


def test_without_backing_chain(tmp_path, monkeypatch):
    program = tmp_path / "qemu-nbd"
    program.touch(mode=0o755)
    monkeypatch.setenv("QEMU_NBD", str(program))
    program.write_text("#!/bin/sh\necho qemu-nbd 5.2.0\n")
    assert spec("/disk", "qcow2", backing_chain=False) == {"driver": "qcow2", "file": FILE, "backing": None}


def test_old_qemu_opens_whole_chains_only(tmp_path, monkeypatch):
    program = tmp_path / "old-qemu-nbd"
    program.write_text("#!/bin/sh\necho qemu-nbd 5.1.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("QEMU_NBD", str(program))
    with pytest.raises(errors.BackendUnavailable, match=r"qemu-nbd 5\.2\.0 or newer"):
        image_spec("/disk", "qcow2", backing_chain=False)


def test_device(block_storage):
    assert is_block_device(block_storage.path)
    assert spec(block_storage.path, "raw") == {
        "driver": "raw",
        "file": {"driver": "host_device", "filename": block_storage.path},
    }


def test_other_than_device(tmp_path):
    (tmp_path / "disk").touch()
    assert not is_block_device(str(tmp_path / "disk"))
    assert not is_block_device("/no/such/file")


def test_what_is_no_image(tmp_path):
    """qemu would wait until the other end is opened."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    for look in (location, image_spec):
        for other in (str(path), str(tmp_path), "/dev/null"):
            with pytest.raises(errors.InvalidValue, match="expected a file, or a block device"):
                look(other)
    # It may come into being.
    assert location(f"{tmp_path}/new") == f"{tmp_path}/new"


def test_name_with_bytes_that_json_cannot_tell():
    path = os.fsdecode(b"/disk-\xfc")
    assert location(path) == path
    with pytest.raises(errors.InvalidValue, match="expected a name in UTF-8"):
        image_spec(path)
    assert spec("/disk-\xfc")["file"]["filename"] == "/disk-\xfc"


def test_location(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert location("/disk") == "/disk"
    # A path that begins with a slash is no URL of qemu's.
    assert location("nbd:x") == f"{tmp_path}/nbd:x"
    assert location("disk", 512, 1024) == image_spec(f"{tmp_path}/disk", offset=512, size=1024)
