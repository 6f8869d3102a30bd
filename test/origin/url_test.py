"""Which URLs can be those of an image."""

from __future__ import annotations

import pytest

from ovirt_imageio import errors
from ovirt_imageio.origin.url import bracketed, check_url, is_url, without_secrets


@pytest.mark.parametrize(
    "url",
    [
        "http://h/images/x",
        "https://h:54322/images/x",
        "https://[::1]:1/x",
        "https://h:port/x",
        "https://::1:54322/images/x",
        "https://0:0:0:0:0:0:0:1/images/x",
    ],
)
def test_good_url(url):
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/images/x",
        "ftp://h/images/secret",
        "https:///images/secret",
        "https://user:secret@h/images/secret",
        "https://user@h/images/secret",
        "https://h",
        "https://h/images/secret?a=b",
        "https://h/images/secret#a",
        "https://h/images/secret x",
        "https://h/images/secret\r\nX: y",
        "https://h/images/secr\net",
        "https://h\x00/images/secret",
        "https://[h/images/secret",
        "https://hö/images/secret",
        "https://h/images/sécret",
    ],
)
def test_bad_url(url):
    with pytest.raises(errors.InvalidValue) as e:
        check_url(url)
    assert "secr" not in str(e.value)


@pytest.mark.parametrize(
    "url,expected",
    [
        ("https://::1:54322/images/x", "https://[::1]:54322/images/x"),
        ("http://::1:54322/images/x", "http://[::1]:54322/images/x"),
        ("https://::1/images/x", "https://[::1]/images/x"),
        ("https://0:0:0:0:0:0:0:1:54322/images/x", "https://[0:0:0:0:0:0:0:1]:54322/images/x"),
        ("https://0:0:0:0:0:0:0:1/images/x", "https://[0:0:0:0:0:0:0:1]/images/x"),
        ("https://2001:DB8::7:54322/images/x", "https://[2001:DB8::7]:54322/images/x"),
        ("https://::ffff:10.0.0.1:54322/images/x", "https://[::ffff:10.0.0.1]:54322/images/x"),
        ("https://fe80::1%eth0:54322/images/x", "https://[fe80::1%eth0]:54322/images/x"),
        ("https://::1:54322", "https://[::1]:54322"),
        # The port is not looked at.
        ("https://::1:port/images/x", "https://[::1]:port/images/x"),
    ],
)
def test_brackets(url, expected):
    assert bracketed(url) == bracketed(expected) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://host:54322/images/x",
        "https://10.0.0.1:54322/images/x",
        "https://a:b:c/images/x",
        "https://user:p:w@h/images/x",
        "https://h/a:b:c",
        "nbd:unix:/a:exportname=b",
        "file:///a:b:c",
        "",
    ],
)
def test_no_brackets(url):
    assert bracketed(url) == url


@pytest.mark.parametrize(
    "url,shown",
    [
        ("https://h:1/images/secret", "https://h:1/images/(ticket)"),
        ("https://user:secret@h/images/secret", "https://(user)@h/images/(ticket)"),
        ("https://h/images/secret?secret#secret", "https://h/images/(ticket)"),
        ("https://h/images/secret?a=b/c", "https://h/images/(ticket)"),
        ("https://h", "https://h"),
        ("https://h:54322", "https://h:54322"),
        ("https://h?secret", "https://h"),
        ("https://h/secret", "https://h/(ticket)"),
        ("https:///images/secret", "https:///images/(ticket)"),
        ("https://user:p#secret@h/images/x", "https://(user)"),
        ("https://user:secret/p@h/images/x", "https://(user)"),
        ("https://h/images/secret@secret", "https://(user)"),
        ("disk.qcow2", "disk.qcow2"),
        ("h/images/secret", "h/images/(ticket)"),
        ("", ""),
    ],
)
def test_what_is_shown(url, shown):
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("text", "answer"), [("https://a/b", True), ("http://a", True), ("HTTPS://a", True), ("/a/http://b", False)]
)
def test_is_url(text, answer):
    assert is_url(text) is answer
