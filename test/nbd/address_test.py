"""NBD URLs, in qemu's notation and in that of the NBD URI specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.nbd import address
from ovirt_imageio.nbd.address import Location, TCPAddress, UnixAddress

GOOD = {
    # What the contract of the service names.
    "nbd:unix:/path": Location(UnixAddress("/path")),
    "nbd:unix:/path:exportname=": Location(UnixAddress("/path")),
    "nbd:unix:/path:exportname=sda": Location(UnixAddress("/path"), "sda"),
    "nbd:unix:/path:exportname=/sda": Location(UnixAddress("/path"), "/sda"),
    "nbd:unix:/path:exportname=a:b=c?d#e%20f": Location(UnixAddress("/path"), "a:b=c?d#e%20f"),
    "nbd:unix:/path:exportname=דיסק": Location(UnixAddress("/path"), "דיסק"),
    "nbd:localhost:10809": Location(TCPAddress("localhost", 10809)),
    "nbd:localhost:10809:exportname=sda": Location(TCPAddress("localhost", 10809), "sda"),
    "nbd:10.0.0.1:10810:exportname=/sda": Location(TCPAddress("10.0.0.1", 10810), "/sda"),
    "nbd:[::1]:10810": Location(TCPAddress("::1", 10810)),
    "nbd:[::1]:10810:exportname=sda": Location(TCPAddress("::1", 10810), "sda"),
    "nbd://localhost:10809": Location(TCPAddress("localhost", 10809)),
    "nbd://localhost:10809/": Location(TCPAddress("localhost", 10809)),
    "nbd://localhost:10809/sda": Location(TCPAddress("localhost", 10809), "sda"),
    "nbd://localhost:10809//sda": Location(TCPAddress("localhost", 10809), "/sda"),
    "nbd://[::1]:10810/sda": Location(TCPAddress("::1", 10810), "sda"),
    # What the specification adds.
    "nbd://localhost": Location(TCPAddress("localhost", 10809)),
    "nbd://localhost/a%20b%2fc": Location(TCPAddress("localhost", 10809), "a b/c"),
    "nbd+unix:///?socket=/run/sock": Location(UnixAddress("/run/sock")),
    # What is empty is not given: a server on a Unix socket has no name that TLS could check.
    "nbds+unix:///?socket=/s&tls-hostname=&tls-certificates=": Location(UnixAddress("/s"), is_secure=True),
    # The longest path of a struct sockaddr_un, which has 108 bytes, and the longest name.
    "nbd:unix:/" + "x" * 106: Location(UnixAddress("/" + "x" * 106)),
    "nbd:unix:/path:exportname=" + "x" * 4096: Location(UnixAddress("/path"), "x" * 4096),
    "nbd+unix:///sda?socket=/run/s%20k": Location(UnixAddress("/run/s k"), "sda"),
    "nbds://host/sda": Location(TCPAddress("host", 10809), "sda", is_secure=True),
    "nbds+unix:///?socket=/s": Location(UnixAddress("/s"), is_secure=True),
    "nbds://h?tls-certificates=/pki&tls-hostname=n": Location(TCPAddress("h", 10809), "", True, "/pki", "n"),
}

BAD = [
    "",
    "nbd",
    "nbd:",
    "nbd:unix",
    "nbd:unix:",
    "nbd:unix:relative",
    "nbd:unix:/path:junk",
    "nbd:unix:/path:exportname",
    "nbd:unix:/with\0zero",
    "nbd:unix:/" + "x" * 107,
    "nbd:unix:/path:exportname=" + "x" * 4097,
    "nbd:localhost",
    "nbd:localhost:",
    "nbd:localhost:port",
    "nbd:localhost:0",
    "nbd:localhost:65536",
    "nbd:localhost:010809",
    "nbd:localhost:99999999999999999999",
    "nbd:localhost:-1",
    "nbd:localhost:10809:junk",
    "nbd:::1:10809",
    "nbd::10809",
    "nbd://",
    "nbd:///sda",
    "nbd://localhost:port/",
    "nbd://localhost:65536/",
    "nbd://[::1/",
    "nbd://user@localhost/",
    "nbd://localhost/#fragment",
    "nbd://localhost/%ff",
    "nbd://localhost/?socket=/path",
    "nbd://localhost/?tls-certificates=/pki",
    "nbd://localhost/?junk",
    "nbd://localhost/?junk=",
    "nbds://localhost/?tls-psk-file=/key",
    "nbd+unix:///",
    "nbd+unix:///?socket=relative",
    "nbd+unix://host/?socket=/path",
    "nbd+vsock://1/",
    "http://localhost/",
    "file:///path",
]


@pytest.mark.parametrize("url", GOOD)
def test_good(url):
    assert address.parse(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_bad(url):
    with pytest.raises(errors.InvalidValue):
        address.parse(url)


def test_error_tells_what_would_be_good():
    with pytest.raises(errors.InvalidValue) as e:
        address.parse("nbd:")
    forms = ("nbd:unix:/path[:exportname=NAME]", "nbd:HOST:PORT", "nbd[s]://HOST", "nbd[s]+unix:///[NAME]?socket=/path")
    assert all(form in str(e.value) for form in forms)


@given(st.text(max_size=50), st.sampled_from(["", "nbd:", "nbd:unix:/", "nbd://", "nbds+unix:///", "nbd://h?"]))
def test_any_text_is_a_location_or_refused(text, start):
    try:
        assert isinstance(address.parse(start + text), Location)
    except errors.InvalidValue as e:
        assert str(e)


@pytest.mark.parametrize("server", [UnixAddress("/path"), TCPAddress("host", 1), TCPAddress("::1", 65535)])
@pytest.mark.parametrize("export", [None, "", "sda", "/sda", "a:b"])
def test_round_trip(server, export):
    assert address.parse(server.url(export)) == Location(server, export or "")


def test_text():
    assert str(UnixAddress("/path")) == "unix:/path"
    assert str(TCPAddress("host", 1)) == "host:1"
    assert str(TCPAddress("::1", 65535)) == "[::1]:65535"


def test_short_form():
    assert UnixAddress("/path").url() == UnixAddress("/path").url("") == "nbd:unix:/path"
    assert TCPAddress("::1", 10809).url() == "nbd:[::1]:10809"


@pytest.mark.parametrize("host,port", [(b"host", 1), ("", 1), (None, 1), ("host", "1"), ("host", 0), ("host", True)])
def test_no_such_address(host, port):
    with pytest.raises(errors.InvalidValue):
        TCPAddress(host, port)
