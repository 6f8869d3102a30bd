"""Accept a connection and close it."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.Disconnected
MESSAGE = "closed the connection|Connection reset"


def script(call: Call) -> None:
    call.hang_up()
