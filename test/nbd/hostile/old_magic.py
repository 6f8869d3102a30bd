"""Greet as servers did before there were options."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.ProtocolError
MESSAGE = "old style"


def script(call: Call) -> None:
    call.send(wire.INIT_MAGIC + wire.OLDSTYLE_MAGIC + bytes(136))
    call.wait_for_hangup()
