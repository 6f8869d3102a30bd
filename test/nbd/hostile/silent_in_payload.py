"""Stop amid the bytes that were asked for."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.TimedOut
MESSAGE = "did not answer"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.send(
        call.chunk_header(request, wire.Chunk.OFFSET_DATA, 8 + request.length)
        + request.offset.to_bytes(8, "big")
        + b"some"
    )
    call.wait_for_hangup()
