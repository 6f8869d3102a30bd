"""Documents of new tickets; cli_test.py tells what the daemon makes of them."""

from __future__ import annotations

import dataclasses
import os

import pytest

from ovirt_imageio.admin import document
from ovirt_imageio.auth.ticket import parse
from ovirt_imageio.config import Config
from ovirt_imageio.config.sections import TLS, Remote


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(1000))
    return path


def test_path_and_url_are_the_same(disk):
    for request in (document.DiskChoice(path=str(disk)), document.DiskChoice(url=disk.as_uri())):
        ticket = document.make(request)
        assert (ticket["url"], ticket["size"], ticket["filename"]) == (disk.as_uri(), 1000, "disk.raw")


def test_relative_path(disk, monkeypatch):
    monkeypatch.chdir(disk.parent)
    assert document.make(document.DiskChoice(path="disk.raw"))["url"] == disk.as_uri()


@pytest.mark.parametrize("path", ["/dev/null", "fifo"])
def test_what_has_no_size(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(document.Mistake, match=f"{path} is neither a file nor a block device"):
        document.make(document.DiskChoice(path=path))
    assert document.hint(document.DiskChoice(path=path)) is None


def test_long_name(tmp_path):
    (tmp_path / ("x" * 255)).write_bytes(bytes(512))
    assert parse(document.make(document.DiskChoice(path=f"{tmp_path}/{'x' * 255}"))).size == 512


def test_size_that_was_given(disk):
    assert document.make(document.DiskChoice(path=str(disk), size=512))["size"] == 512


def test_secret_in_a_url_is_in_nothing_else():
    ticket = document.make(document.DiskChoice(url="https://host/images/secret", size=512))
    assert "secret" not in ticket["transfer_id"]
    assert "filename" not in ticket


@pytest.mark.parametrize(
    "host, tls, url",
    [
        ("host", True, "https://host:54322/images/a%3Fb"),
        ("::1", False, "http://[::1]:54322/images/a%3Fb"),
    ],
)
def test_transfer_url(host, tls, url):
    config = dataclasses.replace(Config(), remote=Remote(host=host), tls=TLS(enable=tls))
    assert document.transfer_url(config, "a?b") == url
