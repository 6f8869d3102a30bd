"""Report an extent without length."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "empty extent"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request, request.offset, bytes(request.length), done=True)
    request = call.request()
    call.status(request, [(0, 0), (request.length, 0)])
    call.wait_for_hangup()
