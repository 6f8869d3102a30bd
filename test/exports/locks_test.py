"""Locks of Ceph, as a program that looks like rbd tells them; `make scale` asks the real one."""

from __future__ import annotations

import json

import pytest

from ovirt_imageio import errors
from ovirt_imageio.exports import locks
from ovirt_imageio.qemu import urls

LOCK = {"id": "somebody", "locker": "client.1", "address": "127.0.0.1:0/1"}
OWN = {"id": "auto 94712345", "locker": "client.2", "address": "127.0.0.1:0/2"}


@pytest.fixture
def rbd(tmp_path, monkeypatch):
    """Return a function that lets the program print something; it returns where its arguments are."""

    def rbd(text):
        path = tmp_path / "rbd"
        path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/arguments\necho '{text}'\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "arguments"

    return rbd


def check(text="rbd:vms/disk"):
    locks.check(urls.parse(text).node, 30)


def test_locked(rbd):
    arguments = rbd(json.dumps([OWN, LOCK]))
    with pytest.raises(errors.BackendUnavailable, match="another program has locked it: somebody; end that"):
        check("rbd:vms/tenant/disk:id=me:conf=/etc/ceph/b.conf")
    assert arguments.read_text().split() == [
        *("lock", "ls", "--format=json", "--id=me", "--conf=/etc/ceph/b.conf", "--", "vms/tenant/disk")
    ]


@pytest.mark.parametrize("text", ["[]", json.dumps([OWN]), "", "error", "{}", "[1]", "null"])
def test_not_locked_or_not_known(rbd, text):
    rbd(text)
    check()


def test_not_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    check()


@pytest.mark.parametrize("text", ["rbd:vms/disk@day", "https://host/a", "file:///a"])
def test_not_asked(rbd, text):
    arguments = rbd(json.dumps([LOCK]))
    check(text)
    assert not arguments.exists()
