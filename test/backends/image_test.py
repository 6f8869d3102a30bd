"""URLs of images, and what holds their servers; exports/exports_test.py has real ones."""

from __future__ import annotations

import errno

import pytest
from fakes.nbdexport import Exporting

from ovirt_imageio import errors
from ovirt_imageio.backends import image
from ovirt_imageio.backends.base import Options, Terms
from ovirt_imageio.backends.memory import MemoryBackend
from ovirt_imageio.backends.nbdconnection import NBDConnection


class Images:
    """A server that is there already; tells how many hold it."""

    def __init__(self, url):
        self.url = url
        self.holders = 0
        self.has_failed = None

    def open(self, url, *, writable, line):
        self.holders += 1
        return self

    def close(self, has_failed=False):
        self.holders -= 1
        self.has_failed = has_failed


class Refusing(MemoryBackend):
    """Does not flush."""

    def flush(self):
        raise errors.StorageError("flush", "it broke", errno.EIO)


def opened(images):
    options = Options(images=images)
    return image.open_backend("image:raw:rbd:a/b", Terms(options, writable=True))


@pytest.mark.parametrize(
    "url, format, secret, text",
    [
        ("image:raw:rbd:vms/disk", "raw", None, "rbd:vms/disk"),
        ("image:qcow2:file:///a:b", "qcow2", None, "file:///a:b"),
        ("image:luks,secret=office:https://host/a", "luks", "office", "https://host/a"),
        ("image:qcow2,secret=a.b:nfs://nas/a", "qcow2", "a.b", "nfs://nas/a"),
    ],
)
def test_good_urls(url, format, secret, text):
    found = image.parse(url)
    assert (found.format, found.secret, found.url.text) == (format, secret, text)
    image.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "image:",
        "image:raw",
        "image:raw:",
        "image:vmdk:rbd:a/b",
        "image:RAW:rbd:a/b",
        "image:luks:rbd:a/b",
        "image:raw,secret=x:rbd:a/b",
        "image:qcow2,secret=:rbd:a/b",
        "image:qcow2,secret=..:rbd:a/b",
        "image:qcow2,secret=a/b:rbd:a/b",
        "image:raw:nbd:unix:/run/sock",
        "image:raw:json:{}",
        "image:raw:image:raw:rbd:a/b",
        "image:raw:https://user:hidden@host/a",
    ],
)
def test_bad_urls(url):
    with pytest.raises(errors.InvalidValue) as e:
        image.check_url(url)
    assert "hidden" not in str(e.value)


def test_not_held_though_closing_fails(monkeypatch):
    with Exporting(lambda: MemoryBackend(b"data")) as exporting:
        images = Images(exporting.location.address.url())
        disk = opened(images)

        def fail(self, writes):
            close(self, writes)
            raise OSError(errno.EIO, "it failed")

        close = NBDConnection.close
        monkeypatch.setattr(NBDConnection, "close", fail)
        with pytest.raises(OSError):
            disk.close()
        assert images.holders == 0


def test_held_while_it_is_open():
    with Exporting(lambda: MemoryBackend(b"data")) as exporting:
        images = Images(exporting.location.address.url())
        disk = opened(images)
        assert (disk.size(), images.holders) == (4, 1)
        disk.close()
        disk.close()
        assert (images.holders <= 0, images.has_failed) == (True, False)


def test_failure_is_told():
    """Of a request that the server refuses, and of a connection that breaks."""
    with Exporting(lambda: Refusing(b"data")) as exporting:
        images = Images(exporting.location.address.url())
        disk = opened(images)
        with pytest.raises(errors.StorageError):
            disk.flush()
        disk.close()
        assert images.has_failed
        images.has_failed = False
        disk = opened(images)
    with pytest.raises(errors.StorageError):
        disk.write(0, memoryview(b"x"))
    disk.close()
    assert images.has_failed


def test_not_held_when_it_cannot_be_opened(tmp_path):
    images = Images(f"nbd:unix:{tmp_path}/none")
    with pytest.raises(errors.StorageError):
        opened(images)
    assert (images.holders, images.has_failed) == (0, True)


def test_not_permitted():
    with pytest.raises(errors.StorageError, match="does not permit images"):
        opened(None)
