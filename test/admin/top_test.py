"""The live view: its lines, on a real pseudo terminal, and without one."""

import io
import os
import pty
import re
import select
import termios

import pytest
from fakes.waiting import DEADLINE

from ovirt_imageio.admin import top


def client(address="192.0.2.7", **changes):
    return {
        "address": address,
        "protocol": "http",
        "connections": 4,
        "received": 2**29,
        "sent": 0,
        "rate": 2**20,
        **changes,
    }


def info(transfer_id="t-1", **changes):
    return {
        "transfer_id": transfer_id,
        "ops": ["write"],
        "size": 2**30,
        "transferred": 2**29,
        "rate": 2**20,
        "connections": 4,
        "kernel_tls": 0,
        "clients": [],
        "remaining": 300,
        "active": True,
        "canceled": False,
        "age": 65,
        **changes,
    }


def test_render():
    lines = top.render([info(), info("t-2", ops=["read"], active=False, rate=0)], 200, 50, "12:00:00")
    assert lines[0] == "12:00:00  2 transfers, 1 active, in 1.00 MiB/s, out 0 bytes/s"
    assert lines[2].split() == (
        [
            "t-1",
            "in",
            "[##########----------]",
            "50%",
            "512.00",
            "MiB",
            "1.00",
            "GiB",
            "1.00",
            "MiB/s",
            "1m05s",
            "4",
            "active",
        ]
    )
    assert lines[3].startswith("t-2       out")


def test_connections_for_which_the_kernel_speaks_tls():
    lines = top.render([info(kernel_tls=3)], 80, 50, "12:00:00")
    assert lines[2].split()[-2:] == ["4/3k", "active"]


def test_clients():
    infos = [info(clients=[client(), client("local", protocol="nbd", sent=2**29)]), info("t-2")]
    lines = top.render(infos, 80, 50, "12:00:00")
    assert lines[3:5] == [
        "    192.0.2.7  in  HTTP  1.00 MiB/s  512.00 MiB  connections: 4",
        "    local  both  NBD  1.00 MiB/s  1.00 GiB  connections: 4",
    ]
    assert lines[5].startswith("t-2 ")


@pytest.mark.parametrize(
    "height, below",
    [
        (4, []),
        (5, ["... 4 more"]),
        (7, ["192.0.2.0", "192.0.2.1", "... 2 more"]),
        (8, ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    ],
)
def test_clients_get_the_room_that_is_left(height, below):
    infos = [info(clients=[client(f"192.0.2.{number}") for number in range(4)]), info("t-2")]
    lines = [line.partition("  in  ")[0] for line in top.render(infos, 80, height, "12:00:00")]
    assert lines[3:-1] == [f"    {text}" for text in below]
    assert lines[-1].startswith("t-2 ")


def test_both_directions():
    both = info(ops=["read", "write"])
    del both["transferred"]
    lines = top.render([both], 200, 50, "12:00:00")
    assert lines[0].endswith("both 1.00 MiB/s")
    assert lines[2].split()[:4] == ["t-1", "both", "-", "-"]


def test_active_ones_come_first():
    infos = [info("idle", active=False), info("active"), info("gone", canceled=True), info("old", remaining=0)]
    lines = top.render(infos, 200, 50, "")
    assert [line.split()[0] for line in lines[2:]] == ["active", "old", "gone", "idle"]


@pytest.mark.parametrize("width, height", [(20, 5), (80, 10), (1, 2), (200, 3)])
def test_fits_the_screen(width, height):
    lines = top.render([info(str(number), clients=[client(), client()]) for number in range(100)], width, height, "")
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_loses_nothing(width):
    clients = [client("2001:db8:1234:5678:9abc:def0:1234:5678", rate=1023 * 2**20), client(protocol="nbd", sent=1)]
    full = info("5a3c5b4e-1a51-4d36-a7d5-0b8a8a3f2f4b", ops=["read"], rate=1023 * 2**20, size=2**40, clients=clients)
    both = info("t-2", ops=["read", "write"])
    lines = top.render([full, both], width, 50, "12:00:00")
    assert all(len(line) <= width for line in lines)
    wide = top.render([full, both], 1000, 50, "12:00:00")
    # The bars may be shorter.
    words = [re.sub(r"\[[#-]*\]|\s|PROGRESS|%", "", "".join(found)) for found in (lines, wide)]
    assert words[0] == words[1]


def test_short_ids_fit_80_columns_in_one_line():
    lines = top.render([info("t-1", size=10 * 2**30, rate=310 * 2**20)], 80, 50, "12:00:00")
    assert len(lines) == 3


def test_counts_transfers_not_lines():
    ids = [f"5a3c5b4e-1a51-4d36-a7d5-0b8a8a3f2f4{number}" for number in range(9)]
    lines = top.render([info(name) for name in ids], 60, 15, "12:00:00")
    shown = [name for name in ids if any(name in line for line in lines)]
    assert lines[-1] == f"... {9 - len(shown)} more"
    assert 0 < len(shown) < 9
    assert len(lines) <= 15


def test_tells_what_does_not_fit():
    lines = top.render([info(str(number)) for number in range(100)], 80, 12, "")
    assert lines[-1] == "... 91 more"


def test_plain_lines():
    sink = io.StringIO()
    top.top(lambda: [info(clients=[client()])], 0, rounds=2, source=io.StringIO(), sink=sink)
    lines = sink.getvalue().splitlines()
    assert len(lines) == 6
    assert "1 transfers, 1 active" in lines[0]
    assert " t-1 in [##########----------]  50% " in lines[1]
    assert lines[2].endswith("  192.0.2.7  in  HTTP  1.00 MiB/s  512.00 MiB  connections: 4")
    assert "\x1b" not in sink.getvalue()


@pytest.fixture
def terminal():
    """Two ends of a terminal: the descriptor of the one that the user has, and a file for the program."""
    user, program = pty.openpty()
    with open(program, "r+b", buffering=0) as raw, io.TextIOWrapper(raw, write_through=True) as file:
        yield user, file
    os.close(user)


def read_until(descriptor, end):
    """Read what a terminal shows, up to end; the kernel hands it out in pieces."""
    text = ""
    while end not in text:
        ready, _, _ = select.select([descriptor], [], [], DEADLINE)
        assert ready, text
        text += os.read(descriptor, 65536).decode()
    return text


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x04"])
def test_key_quits(terminal, key):
    user, file = terminal
    before = termios.tcgetattr(file.fileno())
    shown = []

    def fetch():
        # The key comes while the first screen is shown.
        shown.append(1)
        os.write(user, key)
        return [info()]

    top.top(fetch, 1000, source=file, sink=file)
    text = read_until(user, top.CLEAR_BELOW + top.LEAVE)
    assert len(shown) == 1
    assert text.startswith(top.ENTER + top.HOME)
    assert "t-1" in text
    assert termios.tcgetattr(file.fileno()) == before


def test_other_keys_do_not_disturb(terminal):
    user, file = terminal

    def fetch():
        os.write(user, b"\x1b[A")
        return []

    top.top(fetch, 0.01, rounds=3, source=file, sink=file)
    assert read_until(user, top.LEAVE).count(top.HOME) == 3


def test_terminal_is_given_back_after_an_error(terminal):
    user, file = terminal
    before = termios.tcgetattr(file.fileno())

    def fetch():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        top.top(fetch, 1, source=file, sink=file)
    read_until(user, top.LEAVE)
    assert termios.tcgetattr(file.fileno()) == before
