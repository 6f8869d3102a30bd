"""Send the same bytes twice."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "came twice"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request, request.offset, bytes(request.length))
    call.data(request, request.offset, bytes(request.length), done=True)
    call.wait_for_hangup()
