"""Answer a request that was not made."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "not under way"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request._replace(cookie=4711), 0, bytes(request.length), done=True)
    call.wait_for_hangup()
