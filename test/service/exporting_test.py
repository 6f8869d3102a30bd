"""What [export] means on this system, and each mistake in it."""

from __future__ import annotations

import dataclasses
import fcntl
import os

import pytest

from ovirt_imageio import errors
from ovirt_imageio.config import Config
from ovirt_imageio.config.sections import Daemon, Export
from ovirt_imageio.service import exporting, inspection, privileges


def configured(tmp_path, **keys):
    daemon = dataclasses.replace(Daemon(), run_dir=str(tmp_path / "run"), drop_privileges=False)
    return dataclasses.replace(Config(), daemon=daemon, export=Export(enable=True, **keys))


def test_starts_and_ends(tmp_path):
    exports = exporting.start(configured(tmp_path, allow="file:///images/*\n  rbd:vms/*", sandbox="nice -n 5"))
    [folder] = (tmp_path / "run").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    exports.check("image:raw:rbd:vms/disk")
    exports.close()
    assert list((tmp_path / "run").iterdir()) == []


def test_removes_what_was_left(tmp_path):
    left, used = tmp_path / "run" / "export-left", tmp_path / "run" / "export-used"
    for folder in (left, used):
        folder.mkdir(parents=True)
        (folder / "1.sock").touch()
    lock = os.open(used, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        exporting.start(configured(tmp_path)).close()
    finally:
        os.close(lock)
    assert not left.exists()
    assert (used / "1.sock").exists()


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"allow": "images/*"}, r"\[export\] allow = 'images/\*'"),
        ({"allow": "image:raw:rbd:vms/*"}, "patterns of the URLs behind image:FORMAT:"),
        ({"sandbox": "bwrap 'x"}, r"\[export\] sandbox = .*expected a command: No closing quotation"),
        ({"secrets_dir": "/nowhere"}, r"\[export\] secrets_dir = '/nowhere': expected a folder"),
        ({"user": "no-such-user"}, r"\[export\] user = 'no-such-user': expected a user of this system"),
    ],
)
def test_mistakes(tmp_path, keys, message):
    config = configured(tmp_path, **keys)
    with pytest.raises(errors.ConfigError, match=message):
        exporting.start(config)
    assert [error for error in inspection.find_mistakes(config) if getattr(error, "section", "") == "export"]


def test_other_user_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(errors.ConfigError, match="unless that starts as root"):
        exporting.check(configured(tmp_path, user="root"))
    assert exporting.find_account(configured(tmp_path)) is None


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(errors.ConfigError, match=r"\[daemon\] run_dir"):
        exporting.start(configured(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_folder_of_another_user(tmp_path):
    exports = exporting.start(configured(tmp_path, user="nobody"))
    [folder] = (tmp_path / "run").iterdir()
    found = folder.stat()
    assert (found.st_uid, found.st_gid) == (privileges.find_user("nobody"), os.getegid())
    assert found.st_mode & 0o7777 == 0o710
    exports.close()
    assert list((tmp_path / "run").iterdir()) == []
