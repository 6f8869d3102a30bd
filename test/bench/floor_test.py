"""What bulk data costs at least: that the parts are measured, of little data."""

from __future__ import annotations

import socket

import pytest
from bench.floor import copy, tcp_pair

MIB = 1024**2


@pytest.mark.parametrize("connect", [tcp_pair, socket.socketpair])
def test_copy_tells_what_both_processes_take_for_a_gib(connect):
    sent, received = copy(connect, 8 * MIB)
    assert 0 < sent < 600 and 0 < received < 600
