"""Answer a request twice."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "not under way"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    for _ in range(2):
        call.data(request, request.offset, bytes(request.length), done=True)
    call.wait_for_hangup()
