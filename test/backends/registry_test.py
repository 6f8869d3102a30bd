"""From URLs to backends."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.backends import registry
from ovirt_imageio.backends.base import Options, Terms


@pytest.mark.parametrize(
    "url",
    [
        "file:///var/tmp/disk",
        "file:/var/tmp/disk",
        "nbd:unix:/run/sock",
        "nbd:unix:/run/sock:exportname=sda",
        "nbd:localhost:10809",
        "nbd://localhost:10809/sda",
        "nbd+unix:///sda?socket=/run/sock",
        "nbds://localhost/sda",
        "https://host:54322/images/ticket",
        "http://host:54322/images/ticket",
        "https://server:port/images/ticket",
    ],
)
def test_good_urls(url):
    registry.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/var/tmp/disk",
        "memory:",
        "null:",
        "ftp://host/x",
        "file:relative",
        "nbd:",
        "nbd:unix:",
        "https:///images/x",
        "http://[::1",
    ],
)
def test_bad_urls(url):
    with pytest.raises(errors.InvalidValue):
        registry.check_url(url)


@pytest.mark.parametrize("scheme", ["ftp", "http", "https", "nbd", "nbds", "nbd+unix", "file"])
@pytest.mark.parametrize("user", ["user:secret", "user:se/secret", "secret", "user:[secret", "user:secret#secret"])
def test_refused_url_is_repeated_without_its_password(scheme, user):
    # What looks like a port is not looked at before the disk is opened.
    with pytest.raises(errors.InvalidValue) as e:
        registry.check_url(f"{scheme}://{user}@host/x")
        options = Options()
        registry.open_backend(f"{scheme}://{user}@host/x", Terms(options))
    assert "secret" not in str(e.value)


def test_open(tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 4096)
    options = Options(max_connections=3)
    backend = registry.open_backend(f"file://{disk}", Terms(options))
    try:
        assert (backend.name, backend.size(), backend.max_readers) == ("file", 4096, 3)
    finally:
        backend.close()


def test_a_disk_that_is_not_there_is_named_without_its_path(tmp_path):
    with pytest.raises(errors.StorageError) as e:
        registry.open_backend(f"file://{tmp_path}/secret", Terms(Options()))
    assert "secret" not in str(e.value)
