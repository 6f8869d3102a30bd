"""What patterns allow, and every trick to name something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.backends.allowed import Allowed, canonical


def permits(pattern, url):
    return Allowed(pattern.split()).permits(url)


@pytest.mark.parametrize(
    "pattern, url",
    [
        ("file:///images/*", "file:///images/disk.raw"),
        ("file:///images/*", "file://localhost/images/disk.raw"),
        ("file:///images/*", "file:/images/disk.raw"),
        ("file:///images/disk-?.raw", "file:///images/disk-1.raw"),
        ("file:///images/**", "file:///images/a/b/disk.raw"),
        ("file:///other/* file:///images/*", "file:///images/disk.raw"),
        ("file:///images/[1]", "file:///images/[1]"),
        ("nbd:unix:/run/*/sock", "nbd:unix:/run/vm/sock"),
        ("nbd:unix:/run/*/sock", "nbd+unix:///?socket=/run/vm/sock"),
        ("nbd:unix:/run/sock:exportname=vda", "nbd+unix:///vda?socket=/run/sock"),
        ("nbds:storage:10809:exportname=*", "nbds://STORAGE/vda"),
        ("https://*.example:54322/images/*", "https://h1.example:54322/images/x"),
        ("https://host/images/*", "https://HOST:443/images/x"),
        ("https://127.0.0.1:54322/images/*", "https://127.0.0.1:54322/images/x"),
        ("https://[::1]:54322/images/*", "https://[::1]:54322/images/x"),
        ("https://10.0.0.*/images/*", "https://10.0.0.7/images/x"),
    ],
)
def test_allowed(pattern, url):
    assert permits(pattern, url)


@pytest.mark.parametrize(
    "pattern, url",
    [
        ("", "file:///images/disk"),
        ("file:///images/*", "file:///images/a/disk.raw"),
        ("file:///images/*", "file:///images"),
        ("file:///images/*", "file:///etc/passwd"),
        ("file:///images/disk", "file:///images/disk2"),
        ("file:///images/disk.raw", "file:///images/diskxraw"),
        ("nbd:unix:/run/sock", "nbds+unix:///?socket=/run/sock"),
        ("nbd:unix:/run/sock", "nbd+unix:///other?socket=/run/sock"),
        ("https://host/images/*", "http://host/images/x"),
        ("https://host/images/*", "https://host:54322/images/x"),
        ("https://*.example/images/*", "https://evil.test/.example/images/x"),
        # A wildcard does not reach this host, and what only its network should be asked for.
        ("http://*/**", "http://169.254.169.254/latest/meta-data"),
        ("http://*/**", "http://127.0.0.1/images/x"),
        ("http://*/**", "http://localhost/images/x"),
        ("http://*/**", "http://[::1]/images/x"),
        ("http://*/**", "http://[fe80::1]/images/x"),
        ("http://*/**", "http://[::ffff:127.0.0.1]/images/x"),
        ("http://*/**", "http://0.0.0.0/images/x"),
        ("http://*/**", "http://2130706433/images/x"),
        ("http://*/**", "http://0x7f.1/images/x"),
        ("http://*/**", "http://127.1/images/x"),
        ("http://**", "http://127.0.0.1/images/x"),
        ("http://127.0.0.*/images/*", "http://127.0.0.1/images/x"),
        ("nbd:*:10809", "nbd:127.0.0.1:10809"),
    ],
)
def test_not_allowed(pattern, url):
    assert not permits(pattern, url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///images/../etc/passwd",
        "file:///images/./disk",
        "file:///images//disk",
        "file:////images/disk",
        "file:///images/",
        "file:images/disk",
        "file://host/images/disk",
        "file:///images/disk?x",
        "file:///images/disk#x",
        "file:///images/disk\0",
        "file://[/images/disk",
        "nbd:unix:/run/../sock",
        "nbd+unix:///?socket=/run/a:exportname=b",
        "nbds://host/x?tls-certificates=/etc/pki",
        "nbds://host/x?tls-hostname=other",
        "https://user:secret@host/images/x",
        "https://host/images/../x",
        "https://host/images/%2e%2e/x",
        "https://host/images/x?y",
        "gopher://host/images/x",
        "",
    ],
)
def test_odd_spellings_are_refused(url):
    with pytest.raises(errors.InvalidValue):
        permits("file:///** http://** https://** nbd:** nbds:**", url)


@pytest.mark.parametrize("pattern", ["*", "/images/*", "*:///images", "file:", "file:///", "gopher://x", "FILE:///x"])
def test_patterns_that_allow_too_much_or_nothing(pattern):
    with pytest.raises(errors.InvalidValue, match="pattern"):
        Allowed([pattern])


@given(st.text(alphabet="/.a*?\\%", max_size=12))
def test_what_is_allowed_lies_below(path):
    """Whatever a path looks like: if a pattern of one folder allows it, it is right in that folder."""
    try:
        is_allowed = permits("file:///images/*", f"file:///images{path}")
    except errors.InvalidValue:
        return
    if is_allowed:
        assert path.count("/") == 1
        assert path[1:] not in ("", ".", "..")


def test_one_spelling():
    assert canonical("nbd://host/vda") == canonical("nbd:HOST:10809:exportname=vda")
