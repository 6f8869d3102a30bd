"""Answer an option again and again."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.ProtocolError
MESSAGE = "does not stop"


def script(call: Call) -> None:
    call.greet()
    while True:
        option, _ = call.option()
        if option == wire.Option.SET_META_CONTEXT:
            break
        call.answer(option)
    while True:
        call.reply(option, wire.Reply.META_CONTEXT, b"\0\0\0\1base:allocation")
