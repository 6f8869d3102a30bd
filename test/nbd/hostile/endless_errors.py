"""Report errors of one request for ever."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "does not stop reporting errors"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    while True:
        call.error(request, 5, b"bad", done=False)
