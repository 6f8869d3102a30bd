"""The helper gets ready, or says why not; exports_test.py has what it does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys

import pytest

from ovirt_imageio.exports import helper
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


def test_no_more_processes(monkeypatch):
    """An image is refused; the next ones need not be."""

    def fork():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    kind = socket.AF_UNIX, socket.SOCK_SEQPACKET
    with contextlib.ExitStack() as scope:
        daemon, channel, ours, theirs = map(scope.enter_context, (*socket.socketpair(*kind), *socket.socketpair(*kind)))
        for _ in range(2):
            socket.send_fds(daemon, [b"{}"], [theirs.fileno()])
        daemon.close()
        theirs.close()
        helper.serve(channel, Settings("/run", ()))
        for _ in range(2):
            assert "no process for its server: Resource temporarily" in json.loads(ours.recv(1000))["reason"]
        assert ours.recv(1000) == b""


def test_does_not_start(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="it ended"):
        Exports(Settings(str(folder), ()))
