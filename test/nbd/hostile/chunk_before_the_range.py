"""Send bytes that stand before those that were asked for."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "do not belong"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request._replace(), request.offset - 1, bytes(request.length), done=True)
    call.wait_for_hangup()
