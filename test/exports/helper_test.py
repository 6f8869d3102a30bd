"""The helper gets ready, or says why not; exports_test.py has what it does."""

from __future__ import annotations

import os
import sys

import pytest

from ovirt_imageio.exports.exports import Exports
from ovirt_imageio.exports.settings import Settings


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


def test_removes_its_folder(folder):
    exports = Exports(Settings(str(folder), ()))
    (folder / "left").touch()
    exports._channel.close()
    assert exports._helper.wait() == 0
    assert not folder.exists()


def test_has_its_own_session(folder):
    exports = Exports(Settings(str(folder), ()))
    assert os.getsid(exports._helper.pid) == exports._helper.pid
    exports.close()


def test_does_not_start(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="it ended"):
        Exports(Settings(str(folder), ()))
