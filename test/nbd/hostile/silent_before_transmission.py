"""Negotiate all but the end."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.TimedOut
MESSAGE = "did not answer"


def script(call: Call) -> None:
    call.greet()
    while True:
        option, _ = call.option()
        if option == wire.Option.GO:
            break
        call.answer(option)
    call.wait_for_hangup()
