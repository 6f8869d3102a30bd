"""Report an error whose message is longer than its chunk."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.ProtocolError
MESSAGE = "malformed error"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.chunk(request, wire.Chunk.ERROR, wire.ERROR.pack(5, 1000) + b"short", done=True)
    call.wait_for_hangup()
