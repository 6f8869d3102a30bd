"""What the manager keeps for us is taken if it is ours, and told and dropped if it is not."""

import dataclasses
import os
import socket

import pytest

from ovirt_imageio.config import Config
from ovirt_imageio.httpd.listener import TcpAddress, UnixAddress, listen
from ovirt_imageio.service import handover
from ovirt_imageio.service.keeping import Keeper

CONFIG = dataclasses.replace(Config(), remote=dataclasses.replace(Config().remote, host="127.0.0.1", port=0))


class Notifier:
    """A manager that keeps everything, or does not answer."""

    def __init__(self, answers=True):
        self.answers = answers
        self.kept = {}
        self.forgotten = []

    def keep(self, name, descriptors):
        self.kept.setdefault(name, []).extend(map(os.dup, descriptors))
        return True

    def forget(self, name):
        self.forgotten.append(name)
        return True

    def wait(self):
        return self.answers


@pytest.fixture
def notifier():
    notifier = Notifier()
    yield notifier
    for descriptor in (descriptor for kept in notifier.kept.values() for descriptor in kept):
        os.close(descriptor)


@pytest.fixture
def keep(notifier):
    """Return a function that lets the manager keep a listener at an address, and returns its name."""

    def keep(address, name="remote", config=CONFIG):
        listener = listen(address)
        Keeper(notifier, {}).keep_listeners(config, {name: listener})
        listener.close()
        (kept,) = notifier.kept
        return kept

    return keep


def take(notifier, config=CONFIG, **options):
    """Return what the next process takes."""
    kept, notifier.kept = notifier.kept, {}
    found = Keeper(notifier, kept).take_listeners(config, **options)
    for listener in found.values():
        listener.close()
    for descriptors in kept.values():
        for descriptor in descriptors:
            with pytest.raises(OSError):
                os.fstat(descriptor)
    return {name: listener.address for name, listener in found.items()}


ANY_PORT = TcpAddress("127.0.0.1", 0)


def test_listener_is_kept(notifier, keep):
    name = keep(ANY_PORT)
    assert name.startswith("kept-remote-")
    with socket.socket(fileno=os.dup(notifier.kept[name][0])) as sock:
        address = TcpAddress(*sock.getsockname())
        # Clients connect while no daemon runs.
        socket.create_connection(sock.getsockname()).close()
    assert take(notifier) == {"remote": address}
    assert notifier.forgotten == []


def test_listener_that_is_configured_in_another_way(notifier, keep):
    name = keep(ANY_PORT)
    assert take(notifier, Config()) == {}
    assert notifier.forgotten == [name]


def test_listener_that_a_socket_unit_has_opened(notifier, keep):
    name = keep(ANY_PORT)
    assert take(notifier, given=["remote"]) == {}
    assert notifier.forgotten == [name]


def test_file_of_a_kept_socket_stays(notifier, keep, tmp_path):
    path = tmp_path / "sock"
    keep(UnixAddress(str(path)), "control")
    assert path.is_socket()
    assert take(notifier) == {"control": UnixAddress(str(path))}
    assert path.is_socket()


def test_socket_whose_file_is_gone(notifier, keep, tmp_path, caplog):
    path = tmp_path / "sock"
    name = keep(UnixAddress(str(path)), "control")
    path.unlink()
    assert take(notifier) == {}
    assert notifier.forgotten == [name]
    assert f"The file of the socket that was kept is gone: {path}" in caplog.text


def test_garbage_instead_of_a_socket(notifier, keep, caplog):
    name = keep(ANY_PORT)
    notifier.kept[name] += [os.open("/dev/null", os.O_RDONLY), 999, socket.socket().detach()]
    assert take(notifier) == {}
    assert notifier.forgotten == [name]
    assert caplog.text.count("expected a stream socket that listens") == 3


def test_manager_that_does_not_let_go(notifier, keep, caplog):
    keep(ANY_PORT)
    notifier.answers = False
    assert take(notifier, Config()) == {}
    assert "does not let go of old sockets" in caplog.text


def take_tickets(notifier, *descriptors):
    found = Keeper(notifier, {"tickets": list(descriptors)} if descriptors else {}).take_tickets()
    for descriptor in descriptors:
        with pytest.raises(OSError):
            os.fstat(descriptor)
    return found


def test_tickets(notifier):
    assert Keeper(notifier, {}).hand_over({"tickets": [7]})
    (descriptor,) = notifier.kept.pop("tickets")
    assert take_tickets(notifier, descriptor)["tickets"] == [7]
    assert notifier.forgotten == ["tickets"]


def test_no_tickets(notifier):
    assert take_tickets(notifier) is None
    assert notifier.forgotten == []


def test_garbage_instead_of_tickets(notifier, caplog):
    assert take_tickets(notifier, os.open("/dev/zero", os.O_RDONLY)) is None
    assert notifier.forgotten == ["tickets"]
    assert "All tickets of before the restart are forgotten: Invalid hand-over" in caplog.text


def test_tickets_twice(notifier, caplog):
    """It cannot be told which ones are the last ones."""
    assert take_tickets(notifier, handover.seal({}), handover.seal({})) is None
    assert "'2 descriptors': expected one" in caplog.text


def test_tickets_are_used_once(notifier, caplog):
    """What the manager keeps would be back after a crash, with tickets that were removed meanwhile."""
    notifier.answers = False
    assert take_tickets(notifier, handover.seal({})) is None
    assert "does not let go of them" in caplog.text


def test_manager_that_does_not_take_the_tickets(notifier, caplog):
    notifier.answers = False
    assert not Keeper(notifier, {}).hand_over({})
    assert "The next process will not know the tickets" in caplog.text
