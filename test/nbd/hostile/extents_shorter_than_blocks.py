"""Report extents that are shorter than the blocks of the server, and so lead nowhere."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "shorter than its blocks"


def script(call: Call) -> None:
    call.negotiate(blocks=(4096, 4096, 2**20))
    request = call.request()
    call.data(request, request.offset, bytes(request.length), done=True)
    while True:
        call.status(call.request(), [(1, 0)])
