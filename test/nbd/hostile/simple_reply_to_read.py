"""Answer a read with a simple reply after structured ones were negotiated."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "begins with"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.simple(request, 0, bytes(request.length))
    call.wait_for_hangup()
