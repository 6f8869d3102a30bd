"""Greet as servers did before there were options."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "old style"


def script(call: Call) -> None:
    call.send(b"NBDMAGIC" + bytes.fromhex("0000420281861253") + bytes(136))
    call.wait_for_hangup()
