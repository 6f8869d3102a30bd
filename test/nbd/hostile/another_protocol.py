"""Speak HTTP."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "not an NBD server"


def script(call: Call) -> None:
    call.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    call.wait_for_hangup()
