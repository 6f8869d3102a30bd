"""Requests as a server sees them: found in the bytes of a client, and judged by what was offered.

    find()     the next request in a buffer, None if its header is not complete
    judge()    0, or the error number that answers a request that may not be done

What is wrong with one request is answered; what makes it unknown where the next one begins raises ClientFault.

Pure: knows neither sockets nor disks.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Union

from ovirt_imageio.nbd import wire
from ovirt_imageio.nbd.errors import ClientFault
from ovirt_imageio.nbd.handshake import Agreement
from ovirt_imageio.nbd.offer import Offer
from ovirt_imageio.nbd.wire import Command, CommandFlag, ExportFlag, Mode

__all__ = [
    "EINVAL",
    "EIO",
    "ENOSPC",
    "ENOTSUP",
    "EPERM",
    "Request",
    "Rules",
    "find",
]

# The error numbers of the protocol, which are those of Linux.
EPERM = 1
EIO = 5
EINVAL = 22
ENOSPC = 28
ENOTSUP = 95


class Request(NamedTuple):
    """One request: `payload` bytes follow its header."""

    flags: int
    command: int
    cookie: int
    offset: int
    length: int
    payload: int


def find(buffer: Union[bytearray, memoryview], position: int, end: int, mode: Mode) -> Optional[Request]:
    """Return the request whose header begins at a position of a buffer that is filled up to `end`."""
    layout, magic = (
        (wire.EXTENDED_REQUEST, wire.EXTENDED_REQUEST_MAGIC)
        if mode is Mode.EXTENDED
        else (wire.REQUEST, wire.REQUEST_MAGIC)
    )
    if end - position < layout.size:
        return None
    found, flags, command, cookie, offset, length = layout.unpack_from(buffer, position)
    if found != magic:
        raise ClientFault(f"a request of the NBD client begins with {found:#x}")
    # With extended headers a flag tells it, for every command; qemu 10 forgets it where it writes.
    has_payload = command == Command.WRITE or (mode is Mode.EXTENDED and flags & CommandFlag.PAYLOAD_LENGTH)
    return Request(flags, command, cookie, offset, length, length if has_payload else 0)


class Rules:
    """What one client may do: what was offered, and what was agreed.

    The flags that a command may have are looked up by its number: one look for everything that is unknown.
    """

    def __init__(self, offer: Offer, agreement: Agreement) -> None:
        self.size = offer.size
        self.maximum = offer.maximum_block
        self.can_punch = offer.can_punch
        self._block = offer.minimum_block
        flags = offer.flags
        self._is_read_only = ExportFlag.READ_ONLY in flags
        fua = CommandFlag.FUA if ExportFlag.SEND_FUA in flags else CommandFlag.NONE
        payload = CommandFlag.PAYLOAD_LENGTH if agreement.mode is Mode.EXTENDED else CommandFlag.NONE
        allowed = {Command.READ: fua, Command.WRITE: fua | payload, Command.DISCONNECT: fua}
        if ExportFlag.SEND_DF in flags and agreement.mode is not Mode.SIMPLE:
            allowed[Command.READ] |= CommandFlag.DF
        if ExportFlag.SEND_FLUSH in flags:
            allowed[Command.FLUSH] = fua
        if ExportFlag.SEND_WRITE_ZEROES in flags:
            allowed[Command.WRITE_ZEROES] = fua | CommandFlag.NO_HOLE
        if agreement.contexts:
            allowed[Command.BLOCK_STATUS] = fua | CommandFlag.REQ_ONE
        self._allowed = {int(command): int(flags) for command, flags in allowed.items()}

    def judge(self, request: Request) -> int:
        """Return 0 if the request may be done, else the error that answers it.

        Raises ClientFault if its payload is too long to be sent by mistake.
        """
        flags, command, _, offset, length, payload = request
        if payload > self.maximum:
            raise ClientFault(f"the NBD client sends {payload} bytes with one request")
        is_change = command == Command.WRITE or command == Command.WRITE_ZEROES
        if is_change and self._is_read_only:
            return EPERM
        allowed = self._allowed.get(command)
        if allowed is None or flags & ~allowed:
            return EINVAL
        if command == Command.FLUSH or command == Command.DISCONNECT:
            return EINVAL if offset or length else 0
        if not length or offset % self._block or length % self._block:
            return EINVAL
        if offset + length > self.size:
            return ENOSPC if is_change else EINVAL
        if command == Command.READ and length > self.maximum:
            return EINVAL
        return 0
