"""Send more bytes than were asked for."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "in the reply to"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request, request.offset, bytes(request.length + 1), done=True)
    call.wait_for_hangup()
