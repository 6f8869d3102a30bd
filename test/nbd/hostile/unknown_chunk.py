"""Send a chunk of a type that does not exist."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "chunk of type 77"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.chunk(request, 77, b"what is this?", done=True)
    call.wait_for_hangup()
