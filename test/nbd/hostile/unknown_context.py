"""Report extents of a context that was not selected."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "unknown context 7"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request, request.offset, bytes(request.length), done=True)
    request = call.request()
    call.status(request, [(request.length, 0)], context=7)
    call.wait_for_hangup()
