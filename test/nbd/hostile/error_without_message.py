"""Report an error that is too short to hold one."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.ProtocolError
MESSAGE = "an error of 4 bytes"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.chunk(request, wire.Chunk.ERROR, b"\0\0\0\5", done=True)
    call.wait_for_hangup()
