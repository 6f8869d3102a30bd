"""The library is what it exports, and a program loads of it what it uses."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tools import source

from ovirt_imageio import client


def test_every_name_is_there():
    for name in client.__all__:
        assert name in dir(client)
        assert getattr(client, name) is not None
    assert client.upload.__module__ == "ovirt_imageio.client.api"


def test_all_names_at_once():
    names = {}
    exec("from ovirt_imageio.client import *", names)
    assert names.keys() - {"__builtins__"} == set(client.__all__)


def test_no_such_name():
    with pytest.raises(AttributeError, match="has no attribute 'uplaod'"):
        _ = client.uplaod


# What a start must not wait for.
LATER = (
    "archive, attach, backup, commands.attaching, commands.copies, commands.engine, commands.looking, commands.telling,"
    " copy, engine.commands, engine.connection, imageio, newqcow2, progress, remote, resume, transfer, verify"
)


@pytest.mark.parametrize(
    "start",
    [
        "import ovirt_imageio.client",
        "from ovirt_imageio.client import cli; cli.main(['--help'])",
        "from ovirt_imageio.client import cli; cli.main(['nbd', '--help'])",
    ],
)
def test_start(start):
    script = f"import sys\ntry:\n    {start}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=source.ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "ovirt_imageio.client" in loaded
    assert not loaded & {f"ovirt_imageio.client.{name}" for name in LATER.split(", ")}
    assert not loaded & {"ovirt_imageio.backends", "ovirt_imageio.origin", "ssl", "subprocess", "tarfile"}
