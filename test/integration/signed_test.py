"""Signed tickets with real daemons and curl: any of them serves the disk, and none was asked to add a ticket."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.signing import key_pair
from fakes.waiting import wait_until
from real import daemon as real_daemon
from real.daemon import Daemon

from ovirt_imageio.admin.document import DiskChoice
from ovirt_imageio.admin.signing import Wish, presigned, sign
from ovirt_imageio.client.attach import Attachment
from ovirt_imageio.client.remote import Remote
from ovirt_imageio.nbd import address
from ovirt_imageio.nbd.connect import connect
from ovirt_imageio.nbd.errors import ConnectionDead, RequestFailed

pytestmark = pytest.mark.storage

SIZE = 1024**2
CONFIG = """\
[local]
enable = false
[signed_tickets]
enable = true
keys_dir = {folder}/keys
audience = imageio
allow =
    file://{folder}/images/*
    nbd:unix:/run/vms/*
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "keys").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "keys" / "one.pem").write_bytes(key_pair()[1])
    (tmp_path / "private.pem").write_bytes(key_pair()[0])
    (tmp_path / "images" / "disk").write_bytes(os.urandom(SIZE))
    return tmp_path


@contextlib.contextmanager
def running(folder: Path, name: str) -> Iterator[Daemon]:
    with real_daemon.running(folder / name, CONFIG.format(folder=folder)) as daemon:
        yield daemon


def make(folder: Path, daemon: Daemon, lifetime: int = 600, path: str = "", **options: str) -> str:
    disk = DiskChoice(path or str(folder / "images" / "disk"), None, SIZE)
    jti, token = sign(Wish(disk, "imageio", lifetime, options.get("jti")), str(folder / "private.pem"), "one")
    return presigned(f"https://localhost:{daemon.port}", jti, token)


def curl(daemon: Daemon, url: str, *arguments: object) -> tuple[int, bytes]:
    command = ["curl", "--silent", "--cacert", daemon.ca_file, "--write-out", "%{http_code}", url, *map(str, arguments)]
    out = subprocess.run(command, check=True, capture_output=True).stdout
    return int(out[-3:]), out[:-3]


def test_any_daemon_serves_it(folder):
    content = (folder / "images" / "disk").read_bytes()
    with running(folder, "a") as one, running(folder, "b") as other:
        url = make(folder, one)
        assert curl(one, url) == (200, content)
        elsewhere = url.replace(f":{one.port}/", f":{other.port}/")
        assert curl(other, elsewhere, "--range", "10-19") == (206, content[10:20])
        assert curl(one, url, "--upload-file", folder / "private.pem")[0] == 200
        token = url.partition("=")[2]
        for daemon in (one, other):
            assert token not in daemon.log()


def test_what_is_outside_of_what_is_allowed(folder):
    (folder / "images" / "link").symlink_to("/etc/hostname")
    with running(folder, "a") as daemon:
        for path in ("/proc/self/environ", f"{folder}/private.pem", f"{folder}/images/sub/disk"):
            status, text = curl(daemon, make(folder, daemon, path=path))
            assert status == 401
            assert b"url is not one" in text


def test_revoked_and_renewed(folder):
    with running(folder, "a") as daemon:
        first = make(folder, daemon, 600, jti="x")
        assert curl(daemon, first)[0] == 200
        assert curl(daemon, make(folder, daemon, 6000, jti="x"))[0] == 200
        assert daemon.control("DELETE", "/tickets/x")[0] == 204
        assert curl(daemon, first)[0] == 403


def test_an_attached_client_is_cut_when_its_token_ends(folder):
    """Though it reads all the time."""
    view = memoryview(bytearray(4096))

    def is_cut() -> bool:
        try:
            nbd.read(0, view)
        except (ConnectionDead, RequestFailed):
            return True
        return False

    with running(folder, "a") as daemon, Attachment(Remote(make(folder, daemon, 3), daemon.ca_file)) as attachment:
        with connect(address.parse(attachment.uri)) as nbd:
            assert not is_cut()
            wait_until(is_cut)
        daemon.wait_log("its ticket has ended")
