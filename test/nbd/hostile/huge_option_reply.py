"""Announce an answer of 4 GiB to an option."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.ProtocolError
MESSAGE = "4294967295 bytes long"


def script(call: Call) -> None:
    call.greet()
    option, _ = call.option()
    call.send(wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, wire.Reply.ACK, 2**32 - 1))
    call.wait_for_hangup()
