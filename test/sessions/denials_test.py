"""The file of what is denied: read again when it changes, and relied on."""

from __future__ import annotations

import os

import pytest

from ovirt_imageio import errors
from ovirt_imageio.sessions.denials import DenyFile


def test_lines(tmp_path):
    path = tmp_path / "denied"
    path.write_text("# revoked on Monday\nbackup-1\n  backup-2  # lost\n\n")
    denied = DenyFile(str(path))
    assert [denied(jti) for jti in ("backup-1", "backup-2", "backup-3", "")] == [True, True, False, False]


def test_changes(tmp_path):
    path = tmp_path / "denied"
    path.touch()
    denied = DenyFile(str(path))
    assert not denied("x")
    (tmp_path / "new").write_text("x\n")
    os.replace(tmp_path / "new", path)
    assert denied("x")


def test_changes_within_one_tick_of_the_clock(tmp_path):
    """An editor empties the file; we read it; the editor writes it."""
    path = tmp_path / "denied"
    path.touch()
    os.utime(path, ns=(0, 0))
    denied = DenyFile(str(path))
    path.write_text("x\n")
    os.utime(path, ns=(0, 0))
    assert denied("x")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\xff\n")])
def test_a_file_that_cannot_be_read_any_more(tmp_path, damage, caplog):
    path = tmp_path / "denied"
    path.touch()
    denied = DenyFile(str(path))
    damage(path)
    with pytest.raises(errors.NotAuthenticated):
        denied("x")
    assert "Cannot read which signed tickets are denied" in caplog.text


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(errors.ConfigError, match="deny_file"):
        DenyFile(str(tmp_path / "missing"))
