"""Close the connection instead of answering a request."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.Disconnected
MESSAGE = "closed the connection|Connection reset"


def script(call: Call) -> None:
    call.negotiate()
    call.request()
    call.hang_up()
