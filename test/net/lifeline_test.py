"""A lifeline wakes what holds it, whatever became of the socket meanwhile, and nothing else."""

from __future__ import annotations

import socket

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.net.lifeline import Lifeline, shut_down


def test_line_holds_what_is_wrapped_meanwhile():
    """As TLS does: it takes the descriptor away from the socket."""
    line = Lifeline()
    ours, theirs = socket.socketpair()
    with theirs:
        with line.holding(ours), socket.socket(fileno=ours.detach()) as wrapped:
            wrapped.settimeout(DEADLINE)
            line.cut()
            assert wrapped.recv(1) == b""
        assert theirs.recv(1) == b""


def test_line_lets_go():
    line = Lifeline()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with line.holding(ours):
            pass
        line.cut()
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
        with pytest.raises(ConnectionAbortedError), line.holding(ours):
            raise AssertionError


def test_stays_cut():
    line = Lifeline()
    line.check()
    line.cut()
    line.cut()
    assert line.is_cut
    with pytest.raises(ConnectionAbortedError):
        line.check()


def test_shut_down():
    ours, theirs = socket.socketpair()
    with theirs:
        shut_down(ours, socket.SHUT_WR)
        assert theirs.recv(1) == b""
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
        shut_down(ours)
        with pytest.raises(BrokenPipeError):
            theirs.send(b"x")
        ours.close()
        # Harmless when it is too late.
        shut_down(ours)
