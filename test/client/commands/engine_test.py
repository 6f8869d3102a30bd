"""The commands of an engine, where they need none; client/engine/ has the tests with one."""

from __future__ import annotations

import pytest

from ovirt_imageio.client import cli


def test_restore_to_nowhere(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["restore", "/gone", "--engine-url", "https://engine", "--username", "me"])
    assert "say where to: --storage-domain NAME, or --url URL" in capsys.readouterr().err


def test_no_folder(run):
    status, [record] = run("restore", "--list", "/gone")
    assert (status, record["type"], record["command"]) == (1, "error", "restore")
