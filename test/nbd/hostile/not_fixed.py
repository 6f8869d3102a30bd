"""Do not speak the fixed new style."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "fixed new style"


def script(call: Call) -> None:
    call.greet(flags=0)
    call.wait_for_hangup()
