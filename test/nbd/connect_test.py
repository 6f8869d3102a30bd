"""A connection stands, or is closed with an error that says why: no server, no export, no certificates."""

from __future__ import annotations

import errno
import os
import socket

import pytest
from fakes.nbdpeer import Peer

from ovirt_imageio.nbd import connect, errors, wire
from ovirt_imageio.nbd.address import Location, UnixAddress


class Unwilling(socket.socket):
    """A connected socket on which the system permits nothing to be set."""

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


def test_connection_that_cannot_be_prepared_is_closed(monkeypatch):
    """It was left to the garbage collector, and the error was none that backends know."""
    here, there = socket.socketpair()
    with there:
        unwilling = Unwilling(fileno=here.detach())
        monkeypatch.setattr(connect.connections, "connect", lambda *_: unwilling)
        with pytest.raises(errors.Disconnected, match="cannot prepare the connection"):
            connect.connect(Location(UnixAddress("/nowhere")))
        assert unwilling.fileno() == -1


def test_no_server_listens(tmp_path):
    with pytest.raises(errors.Disconnected, match="cannot connect to the NBD server: No such file"):
        connect.connect(Location(UnixAddress(str(tmp_path / "sock"))))


def test_refused():
    def script(call):
        call.greet()
        while True:
            option, _ = call.option()
            if option == wire.Option.ABORT:
                return
            if option == wire.Option.GO:
                call.reply(option, wire.Reply.ERR_UNKNOWN, b"no such disk")
            else:
                call.answer(option)

    with Peer(script) as peer, pytest.raises(errors.Refused, match="no such disk"):
        connect.connect(peer.location)
    assert peer.calls[0].options[-1][0] == wire.Option.ABORT


def test_certificates_that_are_not_there(tmp_path):
    def script(call):
        call.greet()
        call.reply(call.option()[0], wire.Reply.ACK)

    with Peer(script) as peer:
        location = Location(peer.location.address, "", True, str(tmp_path))
        with pytest.raises(errors.Refused, match="cannot use the certificates"):
            connect.connect(location)
