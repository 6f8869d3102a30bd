"""Send all that was asked for, but never that it is all."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.TimedOut
MESSAGE = "did not answer"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request, request.offset, bytes(request.length))
    call.wait_for_hangup()
