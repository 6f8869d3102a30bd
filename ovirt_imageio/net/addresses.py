"""The addresses of this machine, as the kernel knows them.

Speaks rtnetlink(7) itself, so that no other program is needed. Knows nothing of what listens on them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator

__all__ = ["addresses", "parse"]

# nlmsghdr: length, type, flags, sequence number, port of the sender.
HEADER = struct.Struct("=IHHII")
# ifaddrmsg: family, length of the prefix, flags, scope, index of the interface.
MESSAGE = struct.Struct("=BBBBI")
# rtattr: length, type.
ATTRIBUTE = struct.Struct("=HH")

RTM_NEWADDR = 20
RTM_GETADDR = 22
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR = 2
NLMSG_DONE = 3
IFA_ADDRESS = 1
# On point-to-point links IFA_ADDRESS is the other end.
IFA_LOCAL = 2
# What is reached from everywhere; others belong to one link, or to this host.
SCOPE_UNIVERSE = 0
# An IPv6 address that changes every day, or is not yet or no longer in use (IFA_F_TEMPORARY, DADFAILED, DEPRECATED,
# TENTATIVE). For IPv4 the first one means a second address of a network, which is as good as the first.
UNSTABLE = 0x01 | 0x08 | 0x20 | 0x40

# Where documentation lives (RFC 5737, RFC 3849): the way there is the way to the rest of the world.
ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}

BUFFER_SIZE = 64 * 1024


def addresses() -> list[str]:
    """Return the addresses by which other machines may reach this one, those that it uses itself to go out first.

    None of them when there is no network. Temporary addresses of IPv6 are left out.
    """
    try:
        own = dump()
    except OSError:  # As in some sandboxes.
        own = []
    # Without the first look one that is temporary would come in here.
    used = [source for source in map(outgoing, ELSEWHERE) if source and (source in own or not own)]
    return list(dict.fromkeys([*used, *own]))


def outgoing(family: socket.AddressFamily) -> str:
    """Return the address that this machine uses to go out, empty if it has no way. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((ELSEWHERE[family], 9))
            return str(sock.getsockname()[0])
    except OSError:
        return ""


def dump() -> list[str]:
    """Ask the kernel for all addresses, in the order of its interfaces. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        body = MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        sock.send(HEADER.pack(HEADER.size + len(body), RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + body)
        found: list[str] = []
        is_done = False
        while not is_done:
            some, is_done = parse(sock.recv(BUFFER_SIZE))
            found += some
        return found


def parse(data: bytes) -> tuple[list[str], bool]:
    """Return the addresses in one datagram of an answer, and whether it is the last one. Raises OSError."""
    found: list[str] = []
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        body = data[at + HEADER.size : at + length]
        if kind == NLMSG_DONE:
            return found, True
        if kind == NLMSG_ERROR or length < HEADER.size:
            raise OSError("the kernel does not tell its addresses")
        if kind == RTM_NEWADDR:
            found += public_address(body)
        at += aligned(length)
    return found, False


def public_address(body: bytes) -> Iterator[str]:
    """Yield the address in a message if others can reach it."""
    family, _, flags, scope, _ = MESSAGE.unpack_from(body)
    if scope != SCOPE_UNIVERSE or (family == socket.AF_INET6 and flags & UNSTABLE):
        return
    values = dict(attributes(body[MESSAGE.size :]))
    packed = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
    if packed and family in ELSEWHERE:
        yield str(ipaddress.ip_address(packed))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of each attribute."""
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            return
        yield kind, data[at + ATTRIBUTE.size : at + length]
        at += aligned(length)


def aligned(length: int) -> int:
    """Return where the next message or attribute begins: at a multiple of four bytes."""
    return (length + 3) & ~3
