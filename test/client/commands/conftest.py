"""A small image, and a command that is run for programs."""

from __future__ import annotations

import json

import pytest

from ovirt_imageio.client import cli

DATA = bytes(range(256)) * 256


@pytest.fixture
def image(tmp_path):
    """The path of an image that has DATA."""
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


@pytest.fixture
def check():
    """Compare the keys of a record with what is documented."""

    def check(record, kind, table):
        assert record["type"] == kind
        assert record.keys() == {"type", "command", *table[record["command"]]}

    return check
