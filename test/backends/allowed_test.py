"""What patterns allow, and every trick to name something else."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.backends import registry
from ovirt_imageio.backends.allowed import Allowed, canonical
from ovirt_imageio.nbd import address
from ovirt_imageio.origin.url import bracketed


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
        ("nbd:unix:/run/vms/**", "nbd:unix:/run/vms/a/sock:exportname=vda"),
        ("nbd:[2001:db8::*]:10809", "nbd:[2001:db8::1]:10809"),
        ("https://*.example:54322/images/*", "https://h1.example:54322/images/x"),
        ("https://host/images/*", "https://HOST:443/images/x"),
        ("https://127.0.0.1:54322/images/*", "https://127.0.0.1:54322/images/x"),
        ("https://[::1]:54322/images/*", "https://[::1]:54322/images/x"),
        ("https://10.0.0.*/images/*", "https://10.0.0.7/images/x"),
        ("https://**", "https://host/images/x"),
        ("rbd:vms/*", "rbd:vms/disk"),
        ("rbd:vms/*:id=imageio", "rbd:vms/disk:id=imageio"),
        ("rbd:vms/**", "rbd:vms/tenant/disk@day"),
        ("iscsi://storage:3260/iqn.*/*", "iscsi://STORAGE:3260/iqn.2001-04.example:disk/1"),
        ("nfs://nas/export/*", "nfs://nas/export/a.raw"),
        ("ssh://backup@host/images/*", "ssh://backup@host/images/a"),
        ("image:raw:rbd:vms/*", "image:raw:rbd:vms/disk"),
        ("image:*:file:///images/*", "image:qcow2:file:/images/a"),
        ("image:luks,secret=a:file:///images/*", "image:luks,secret=a:file:///images/a"),
        # An engine writes addresses without brackets.
        ("https://[2001:db8::1]:54322/images/*", "https://2001:db8::1:54322/images/x"),
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
        # An option is not a part of the name of an image in Ceph.
        ("rbd:vms/*", "rbd:vms/disk:id=admin"),
        ("rbd:**", "rbd:vms/disk:conf=/tmp/evil.conf"),
        ("rbd:vms/*", "rbd:vms/tenant/disk"),
        ("rbd:vms/*", "rbd:other/disk"),
        ("nfs://*/**", "nfs://127.0.0.1/a"),
        ("ssh://*/**", "ssh://user@169.254.169.254/a"),
        ("ssh://*/images/*", "ssh://other@host/etc/x"),
        # A format is not the place of an image, and an image is not a disk of its own.
        ("rbd:vms/*", "image:raw:rbd:vms/disk"),
        ("image:raw:rbd:vms/*", "rbd:vms/disk"),
        ("image:raw:rbd:vms/*", "image:qcow2:rbd:vms/disk"),
        ("image:*:file:///images/*", "image:raw:file:///etc/passwd"),
        ("image:luks:file:///images/*", "image:luks,secret=a:file:///images/a"),
        # A path or an export does not stand in for a part of the place.
        ("https://**.example:54322/images/*", "https://evil.test/x.example:54322/images/x"),
        ("nbd:*.example:10809", "nbd:evil.test:22:exportname=.example:10809"),
        ("nbd:unix:/run/vms/*/sock", "nbd:unix:/run/vms/other:exportname=x/sock"),
        ("nbd:unix:/run/vms/*", "nbd:unix:/run/vms/sock:exportname=vda"),
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
        "image:raw:file:///images/../etc/passwd",
        "image:raw:file:////images/a",
        "image:raw:json:{}",
        "image:raw:image:raw:rbd:a/b",
        "rbd:vms/disk:log_file=/x",
        "nfs://nas/export/../a",
        "nfs://nas//a",
        "ssh://user:secret@host/a",
        "iscsi://host/iqn/../1",
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
        "https://server:port/images/x",
        "https://host:65536/images/x",
        "nbd:\u24dbocalhost:10809",
        "nbd:127\u30020\u30020\u30021:10809",
        "nbd:\uff11\uff12\uff17.0.0.\uff11:10809",
        "nbd://\u24dbocalhost",
        "nbd:[a:exportname=b]:10809",
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


PARTS = ["nbd", "nbds", "+unix", "https", "http", "file", ":", "//", "/", "unix:", "a", ".example", "evil.test"]
PARTS += ["10809", "/vms/", "sock", ":exportname=", "?socket=/vms/", "?", "#", "@", "[", "]", "%2f", "..", "::1", "\n"]
PATTERNS = "file:///vms/* nbd:*.example:10809:exportname=* nbds:*.example:10809 nbd:unix:/vms/*/sock:exportname=**"
PATTERNS += " https://*.example:10809/a/* http://**.example/a/**"


@given(st.lists(st.sampled_from(PARTS), max_size=10).map("".join))
@example("nbd:evil.test:10809:exportname=.example:10809")
@example("nbd:unix:/vms/evil.test:exportname=/sock")
@example("http://evil.test/.example/a/")
def test_what_is_allowed_is_what_is_opened(url):
    """The backends read URLs with parsers of their own: what they would open lies where a pattern leads."""
    try:
        if not permits(PATTERNS, url):
            return
    except errors.InvalidValue:
        return
    registry.check_url(url)
    if url.startswith("file:"):
        path = urlsplit(url).path
        assert os.path.dirname(path) == "/vms"
        assert os.path.normpath(path) == path
    elif url.startswith("nbd"):
        where = address.parse(url).address
        if isinstance(where, address.UnixAddress):
            assert re.fullmatch("/vms/[^/]+/sock", where.path)
        else:
            assert where.host.lower().endswith(".example")
            assert where.port == 10809
    else:
        assert (urlsplit(bracketed(url)).hostname or "").endswith(".example")


def test_one_spelling():
    assert canonical("nbd://host/vda") == canonical("nbd:HOST:10809:exportname=vda")
