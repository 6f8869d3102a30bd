"""Report a hole of 4 GiB in what was asked for."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "do not belong"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.hole(request, request.offset, 2**32 - 1, done=True)
    call.wait_for_hangup()
