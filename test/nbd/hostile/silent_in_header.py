"""Stop amid the header of a reply."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.TimedOut
MESSAGE = "did not answer"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.send(call.chunk_header(request, wire.Chunk.NONE, 0)[:10])
    call.wait_for_hangup()
