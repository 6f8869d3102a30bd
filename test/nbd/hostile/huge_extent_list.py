"""Announce a list of extents of 4 GiB."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.ProtocolError
MESSAGE = "list of extents of 4294967292 bytes"


def script(call: Call) -> None:
    call.negotiate()
    request = call.request()
    call.data(request, request.offset, bytes(request.length), done=True)
    request = call.request()
    call.send(call.chunk_header(request, wire.Chunk.BLOCK_STATUS, 2**32 - 4))
    call.wait_for_hangup()
