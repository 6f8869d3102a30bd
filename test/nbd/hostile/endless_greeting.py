"""Send zeroes for ever."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.ProtocolError
MESSAGE = "not an NBD server"


def script(call: Call) -> None:
    while True:
        call.send(bytes(1024))
