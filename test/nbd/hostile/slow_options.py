"""Answer in time, but again and again without coming to an end."""

from __future__ import annotations

from fakes.nbdpeer import Call

from ovirt_imageio.nbd import errors, wire

EXPECTED = errors.TimedOut
MESSAGE = "did not finish to negotiate"
# Each answer must be in time, on a busy machine as well.
TIMEOUT = 2.0


def script(call: Call) -> None:
    call.greet()
    while True:
        option, _ = call.option()
        if option == wire.Option.GO:
            break
        call.answer(option)
    message = wire.OPTION_REPLY.pack(wire.REPLY_MAGIC, option, wire.Reply.INFO, 2) + b"\x47\x11"
    while True:
        for byte in message:
            call.send(bytes([byte]))
            # Shorter than the time-out of one answer.
            call.pause(0.02)
