"""The keys that programs rely on: this is where they are frozen. New ones may come, none may go."""

from __future__ import annotations

import json
import re

import pytest
from tools import source

from ovirt_imageio.client import records
from ovirt_imageio.client.commands import COMMANDS

COPY = ["transferred", "elapsed", "connection", "tls", "protocol", "proxy", "mode"]

FROZEN = {
    "upload": COPY,
    "download": COPY,
    "backup": [*COPY, "filename", "base", "size", "bytes", "sha256"],
    "verify": ["algorithm", "checksum"],
    "info": ["info"],
    "measure": ["measure"],
    "checksum": ["algorithm", "block_size", "checksum"],
    "extents": ["extents", "size"],
    "upload-disk": [*COPY, "disk_id"],
    "download-disk": COPY,
    "backup-vm": [*COPY, "vm", "vm_id", "folder", "point", "checkpoint", "disks"],
    "restore": [*COPY, "vm", "vm_id", "folder", "point", "disks"],
}

FROZEN_OTHERS = {
    "progress": ["transferred", "elapsed", "description", "size"],
    "extent": ["start", "length", "zero", "hole", "dirty"],
    "point": ["name", "mode", "checkpoint", "quiesced", "disks"],
    "error": ["command", "message", "status"],
}


@pytest.mark.parametrize("command", FROZEN)
def test_results(command):
    assert set(FROZEN[command]) <= set(records.RESULTS[command])


@pytest.mark.parametrize("kind", FROZEN_OTHERS)
def test_others(kind):
    assert set(FROZEN_OTHERS[kind]) <= set(records.OTHERS[kind])


def test_every_command_has_a_result():
    assert records.RESULTS.keys() == COMMANDS.keys() - {"nbd"}
    assert records.PLANS.keys() <= records.RESULTS.keys()


def test_documented():
    """docs/records.md has a row for each kind and command, with exactly these keys."""
    text = (source.ROOT / "docs" / "records.md").read_text()
    rows = dict(re.findall(r"^\| `([\w -]+)` \| (.*?) \|", text, re.MULTILINE))
    expected = {
        **{name: keys for name, keys in records.OTHERS.items()},
        **{f"result {name}": keys for name, keys in records.RESULTS.items()},
        **{f"plan {name}": keys for name, keys in records.PLANS.items()},
    }
    assert {name: tuple(re.findall(r"`(\w+)`", keys)) for name, keys in rows.items()} == expected


def test_line():
    assert json.loads(records.to_line("error", {"status": 1})) == {"type": "error", "status": 1}
    assert records.to_line("error", {"message": "two\nlines"}).count("\n") == 1
