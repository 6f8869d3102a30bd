"""Clients are told where they reach us, and a certificate is good for all of it."""

import socket

import pytest

from ovirt_imageio.service.serve import reach

OWN = ["198.51.100.7", "2001:db8::7"]


def find(host, own=OWN):
    return reach.find(host, lambda: list(own))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_this_machine_only(host):
    found = find(host)
    assert found.hosts == [host]
    assert not found.is_public
    assert {host, "localhost", "127.0.0.1", "::1", socket.gethostname()} <= set(found.names)
    # It stays good when the network changes.
    assert not set(OWN) & set(found.names)


def test_every_address():
    found = find("::")
    assert found.hosts[:2] == OWN
    assert found.is_public
    assert {*OWN, "localhost", "127.0.0.1", "::1", socket.gethostname()} <= set(found.names)


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_every_address_of_ipv4(host):
    found = find(host)
    assert found.hosts[0] == OWN[0]
    assert OWN[1] not in found.names


def test_one_address():
    found = find("198.51.100.7")
    assert found.hosts == ["198.51.100.7"]
    assert found.is_public
    assert len(found.names) == len(set(found.names))


def test_no_network():
    found = find("::", [])
    assert (found.hosts, found.is_public) == (["localhost"], False)


def test_unknown_host():
    """Listening will tell what is wrong with it."""
    assert find("no-such-host.invalid").hosts == ["no-such-host.invalid"]


def test_name_that_others_may_know():
    # Whatever this machine is called: the name counts if it means one of the addresses.
    known = reach.resolve(socket.gethostname())
    assert bool(reach.known_names(socket.gethostname(), known)) == bool(known)
    assert reach.known_names(socket.gethostname(), OWN) == []
    assert reach.known_names("no-such-host.invalid", OWN) == []


def test_names_that_a_certificate_cannot_have():
    assert reach.usable(["a.b", "a.b", "(none)", "", "fe80::1%eth0", "::1"]) == ["a.b", "::1"]
