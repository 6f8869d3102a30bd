"""What the kernel says of its addresses is read right, and is true."""

import ipaddress
import socket
import sys

import pytest
from real import network

from ovirt_imageio.net import addresses

FAMILY_4, FAMILY_6 = 2, 10


def message(family, scope, address, flags=0x80, local=None, kind=20):
    """Return one message of a dump."""
    packed = ipaddress.ip_address(address).packed
    body = bytes([family, 24, flags, scope]) + (1).to_bytes(4, sys.byteorder)
    body += attribute(1, packed)
    if local:
        body += attribute(2, ipaddress.ip_address(local).packed)
    # A name, with a length that is no multiple of four.
    body += attribute(3, b"eth0\0")
    return header(kind, body)


def attribute(kind, value):
    length = 4 + len(value)
    return length.to_bytes(2, sys.byteorder) + kind.to_bytes(2, sys.byteorder) + value + bytes(-length % 4)


def header(kind, body=b""):
    return (16 + len(body)).to_bytes(4, sys.byteorder) + kind.to_bytes(2, sys.byteorder) + bytes(10) + body


def test_addresses_that_others_reach():
    data = (
        message(FAMILY_4, 254, "127.0.0.1", local="127.0.0.1")
        + message(FAMILY_4, 0, "192.0.2.2", local="192.0.2.2")
        + message(FAMILY_6, 254, "::1")
        + message(FAMILY_6, 253, "fe80::1")
        + message(FAMILY_6, 0, "2001:db8::2")
    )
    assert addresses.parse(data) == (["192.0.2.2", "2001:db8::2"], False)
    assert addresses.parse(data + header(3, bytes(4))) == (["192.0.2.2", "2001:db8::2"], True)


def test_own_end_of_a_tunnel():
    assert addresses.parse(message(FAMILY_4, 0, "192.0.2.1", local="192.0.2.9"))[0] == ["192.0.2.9"]


@pytest.mark.parametrize("flag", [0x01, 0x08, 0x20, 0x40])
def test_addresses_that_will_change(flag):
    assert addresses.parse(message(FAMILY_6, 0, "2001:db8::2", flags=flag))[0] == []
    # For IPv4 the first flag means a second address of the network.
    assert addresses.parse(message(FAMILY_4, 0, "192.0.2.2", flags=flag))[0] == ["192.0.2.2"]


def test_other_messages_are_left_out():
    assert addresses.parse(message(FAMILY_4, 0, "192.0.2.2", kind=16)) == ([], False)
    assert addresses.parse(message(17, 0, "192.0.2.2")) == ([], False)


@pytest.mark.parametrize("data", [header(2, bytes(4)), bytes(16)])
def test_refusal(data):
    with pytest.raises(OSError, match="does not tell"):
        addresses.parse(data)


def test_cut_attributes():
    assert list(addresses.attributes(bytes([2, 0, 1, 0]))) == []


def test_real_kernel():
    for address in addresses.addresses():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            # It is ours: others cannot be bound.
            sock.bind((address, 0))
        assert not ipaddress.ip_address(address).is_loopback


@pytest.mark.skipif(not network.available(), reason="no network namespaces")
def test_new_address_is_found():
    with network.apart() as apart:
        assert apart.address in addresses.addresses()


def test_outgoing_comes_first():
    used = addresses.outgoing(socket.AF_INET)
    if used in addresses.dump():
        assert addresses.addresses()[0] == used
