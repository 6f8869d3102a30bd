"""The journal gets what its protocol wants."""

import logging
import os
import socket
import struct

import pytest

from ovirt_imageio.service import journal


@pytest.fixture
def receiver(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "socket"))
        receiver.settimeout(30)
        yield receiver


@pytest.fixture
def log(tmp_path, receiver):
    """A logger whose only handler writes to the receiver."""
    logger = logging.Logger("http")
    handler = journal.JournalHandler(str(tmp_path / "socket"))
    logger.addHandler(handler)
    yield logger
    handler.close()


def received(receiver):
    """Return the fields of the next line."""
    data, found = receiver.recv(1024**2), {}
    while data:
        name, data = data.split(b"\n", 1)
        if b"=" in name:
            name, value = name.split(b"=", 1)
        else:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        found[name.decode()] = value.decode()
    return found


def test_line(log, receiver):
    log.info("CUT transfer=%s connection=%d: %s", "t-1", 7, "too slow")
    assert received(receiver) == {
        "MESSAGE": "CUT transfer=t-1 connection=7: too slow",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "ovirt-imageio",
        "LOGGER": "http",
        "THREAD_NAME": "MainThread",
        "TRANSFER": "t-1",
        "CONNECTION": "7",
    }


@pytest.mark.parametrize(
    "level, priority", [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_priority(log, receiver, level, priority):
    getattr(log, level)("a line")
    found = received(receiver)
    assert found["PRIORITY"] == priority
    assert "TRANSFER" not in found


def test_a_line_feed_begins_no_field(log, receiver):
    log.info("transfer=%s", "t-1\nPRIORITY=0")
    found = received(receiver)
    assert (found["MESSAGE"], found["PRIORITY"], found["TRANSFER"]) == ("transfer=t-1\nPRIORITY=0", "6", "t-1")


def test_traceback(log, receiver):
    try:
        raise ValueError("connection=9")
    except ValueError:
        log.exception("Cannot clean up connection=7")
    found = received(receiver)
    assert found["MESSAGE"].endswith("ValueError: connection=9")
    assert found["CONNECTION"] == "7"


def test_long_line(log, receiver):
    log.info("x" * 1024**2)
    assert set(received(receiver)["MESSAGE"]) == {"x"}


def test_no_journal(tmp_path, capsys):
    """What is logged goes on."""
    handler = journal.JournalHandler(str(tmp_path / "nothing"))
    logger = logging.Logger("http")
    logger.addHandler(handler)
    logger.info("a line")
    handler.close()
    assert "FileNotFoundError" in capsys.readouterr().err


def test_what_is_behind_a_descriptor():
    status = os.fstat(0)
    stream = f"{status.st_dev}:{status.st_ino}"
    assert journal.is_behind(0, {"JOURNAL_STREAM": stream})
    assert not journal.is_behind(0, {"JOURNAL_STREAM": "0:1"})
    assert not journal.is_behind(0, {})
    assert not journal.is_behind(1000000, {"JOURNAL_STREAM": stream})
