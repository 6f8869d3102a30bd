"""What an attendant may open, and what it tells; exports_test.py has the whole."""

from __future__ import annotations

import json
import os
import socket

import pytest

from ovirt_imageio import errors
from ovirt_imageio.backends.allowed import Allowed
from ovirt_imageio.exports.attendant import admitted, attend, refusal
from ovirt_imageio.exports.settings import Settings
from ovirt_imageio.qemu import urls


@pytest.mark.parametrize("url", ["rbd:vms/disk", "https://storage.example/a.qcow2", "iscsi://storage/iqn.x:y/1"])
def test_admitted_on_a_network(url):
    found = admitted(urls.parse(url), Allowed(["rbd:vms/*", "https://storage.example/*", "iscsi://storage/**"]))
    assert found == urls.parse(url)


@pytest.mark.parametrize(
    "url", ["rbd:other/disk", "rbd:vms/disk:conf=/tmp/evil", "https://other.example/a", "file:///a//b", "file:///etc/x"]
)
def test_not_admitted(url):
    assert admitted(urls.parse(url), Allowed(["rbd:vms/*", "rbd:vms/**", "file:///images/*"])) is None


def test_links_are_followed_once(tmp_path):
    """qemu opens what was looked at."""
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    real = os.path.realpath(tmp_path / "real")
    allowed = Allowed([f"file://{tmp_path}/*", f"file://{os.path.dirname(real)}/*"])
    assert admitted(urls.parse(f"file://{tmp_path}/link"), allowed) == (f"file://{real}", real, {})


@pytest.mark.parametrize(
    "error, reason, is_late",
    [
        (errors.BackendUnavailable("x", "Could not open '/images/a': No"), "Could not open '(the image)': No", False),
        (errors.BackendUnavailable("x", 'Bad json:{"file": {"a": "/images/a"}}: No'), "Bad (the image): No", False),
        (errors.BackendTimeout("x", "not ready"), "not ready", True),
        (errors.UnsafeImage("/images/a", "it stands on /etc/shadow"), None, False),
        (errors.InvalidValue("image", "/images/a", "a file"), None, False),
    ],
)
def test_client_does_not_learn_where_it_is(error, reason, is_late):
    told = refusal(error, "image:raw:file:///images/a")
    assert told["is_late"] == is_late
    assert told["detail"] == str(error)
    assert "/" not in told["reason"].replace("(the image)", "")
    assert reason is None or told["reason"] == reason


def test_log_does_not_show_the_path_on_a_server():
    """It may be that of the ticket of another daemon."""
    error = errors.BackendUnavailable("open", 'Bad json:{"file": {"url": "https://h/images/SECRET"}}: No')
    assert refusal(error, "image:raw:https://h/images/SECRET")["detail"] == "Cannot open: Bad https://h/(path): No"
    error = errors.UnsafeImage("https://h/images/SECRET", "it stands on 'x'")
    assert "SECRET" not in refusal(error, "image:qcow2:https://h/images/SECRET")["detail"]


def test_refused(tmp_path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        attend(theirs, {"image": "image:raw:file:///etc/passwd", "writable": False}, Settings(str(tmp_path), ()))
        assert "[export] allow does not permit it" in json.loads(ours.recv(4096))["detail"]
