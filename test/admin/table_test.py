"""Tickets in columns."""

import pytest

from ovirt_imageio.admin import table


def info(**changes):
    return {
        "transfer_id": "t-1",
        "uuid_prefix": "c0ffee00",
        "ops": ["read"],
        "size": 2**30,
        "transferred": 2**29,
        "rate": 2**20,
        "connections": 4,
        "remaining": 300,
        "active": True,
        "canceled": False,
        "age": 65,
        **changes,
    }


def test_table():
    lines = table.table([info(), info(transfer_id="transfer-2", ops=["read", "write"], active=False, connections=12)])
    assert lines == [
        "TRANSFER    STATE   OPS             SIZE        DONE        RATE  CONNS  EXPIRES  TICKET",
        "t-1         active  read        1.00 GiB  512.00 MiB  1.00 MiB/s      4    5m00s  c0ffee00...",
        "transfer-2  idle    read,write  1.00 GiB  512.00 MiB  1.00 MiB/s     12    5m00s  c0ffee00...",
    ]


UUID = "5a3c5b4e-1a51-4d36-a7d5-0b8a8a3f2f4b"
FULL = info(transfer_id=UUID, ops=["read", "write"], size=1023 * 2**30, transferred=1023 * 2**30, rate=1023 * 2**20)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 97, 200])
def test_narrow_table_loses_nothing(width):
    infos = [FULL, info(last_error="Storage failed to open the disk: Permission denied")]
    lines = table.table(infos, width)
    assert max(map(len, lines)) <= width
    # Whatever the layout: each word that is in the wide table.
    assert "".join("".join(table.table(infos)).split()) == "".join("".join(lines).split())


def test_layout_at_60_columns():
    assert table.table([FULL], 60) == [
        "TRANSFER                              STATE   OPS",
        "           SIZE         DONE           RATE  CONNS  EXPIRES",
        "    TICKET",
        "5a3c5b4e-1a51-4d36-a7d5-0b8a8a3f2f4b  active  read,write",
        "    1023.00 GiB  1023.00 GiB  1023.00 MiB/s      4    5m00s",
        "    c0ffee00...",
    ]


def test_last_error_is_one_plain_line():
    [_, row, error] = table.table([info(last_error="went\nwrong \x1b[31m")])
    assert "went" not in row
    assert error == "    last error: went wrong \ufffd[31m"


def test_empty_table():
    [heads] = table.table([])
    assert heads.startswith("TRANSFER")


def test_unknown_progress():
    both = info(ops=["read", "write"])
    del both["transferred"]
    assert "  -  " in table.table([both])[1]
    assert table.progress(both) == 0


@pytest.mark.parametrize(
    "changes, word",
    [
        ({}, "active"),
        ({"active": False}, "idle"),
        ({"active": False, "remaining": 0}, "expired"),
        ({"canceled": True}, "canceled"),
    ],
)
def test_state(changes, word):
    assert table.state(info(**changes)) == word


@pytest.mark.parametrize("ops, way", [(["read"], "out"), (["write"], "in"), (["write", "read"], "both")])
def test_direction(ops, way):
    assert table.direction(info(ops=ops)) == way


@pytest.mark.parametrize("size, done, share", [(100, 50, 0.5), (100, 100, 1), (100, 200, 1), (0, 0, 0)])
def test_progress(size, done, share):
    assert table.progress(info(size=size, transferred=done)) == share


@pytest.mark.parametrize(
    "share, width, text",
    [(0, 6, "[----]"), (0.5, 6, "[##--]"), (0.99, 6, "[###-]"), (1, 6, "[####]"), (1, 2, "[]"), (1, 0, "[]")],
)
def test_bar(share, width, text):
    assert table.bar(share, width) == text
