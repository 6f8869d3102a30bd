"""The connection: the words of failures, the time of looks, and interrupts that wait."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from fakes import ports
from fakes.clock import FakeClock
from fakes.engine import PASSWORD, USER

from ovirt_imageio.client.engine.connection import (
    UNTRUSTED,
    Engine,
    EngineError,
    Login,
    NoSuchThing,
    held_interrupts,
    words,
)


def test_missing_sdk(monkeypatch):
    monkeypatch.setitem(sys.modules, "ovirtsdk4", None)
    with pytest.raises(EngineError, match="install the package python3-ovirt-engine-sdk4, or run pip install"):
        Engine(Login("http://localhost", USER, PASSWORD))


def test_password_is_not_in_the_text_form():
    assert PASSWORD not in repr(Login("http://localhost", USER, PASSWORD))


def test_wrong_password(engine):
    expected = r"Cannot log in: the engine refuses the user: .*Cannot authenticate"
    with pytest.raises(EngineError, match=expected) as error:
        Engine(Login(engine.url, USER, "wr0ng"))
    assert "wr0ng" not in str(error.value)


def test_not_found(engine):
    with Engine(Login(engine.url, USER, PASSWORD)) as connection:
        service = connection.system.disks_service().disk_service("1")
        with pytest.raises(NoSuchThing, match="Cannot look: Entity not found"), connection.asking("look"):
            service.get()


def test_engine_is_away():
    pytest.importorskip("ovirtsdk4", reason="ovirt-engine-sdk-python is not installed")
    with ports.reserved() as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(EngineError, match=rf"Cannot log in: the engine at {url} does not answer: .*connect"):
            Engine(Login(url, USER, PASSWORD))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Cannot add\n Virtual Disk.]", "Cannot add Virtual Disk."),
        ("Failed to read: [(<pycurl.Curl object at 0x7f>, 7, 'Failed to connect to x')]", "Failed to connect to x"),
        ("Error: (60, 'No good certificate')", f"No good certificate{UNTRUSTED}"),
    ],
)
def test_words(text, expected):
    assert words(Exception(text)) == expected


def test_looks(engine):
    clock = FakeClock()
    connection = Engine(Login(engine.url, USER, PASSWORD), now=clock, sleep=clock.advance)
    with connection:
        assert len(list(connection.looks(3))) == 4
        assert len(list(connection.looks(0))) == 1


def test_interrupt_is_held():
    done = []
    with pytest.raises(KeyboardInterrupt), held_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
