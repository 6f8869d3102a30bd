"""Greet, and answer no option."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors

EXPECTED = errors.TimedOut
MESSAGE = "did not answer"


def script(call: Call) -> None:
    call.greet()
    call.wait_for_hangup()
