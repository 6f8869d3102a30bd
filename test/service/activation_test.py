"""Sockets of the service manager are taken by name, and anything else is refused."""

import os
import socket

import pytest

from ovirt_imageio import errors
from ovirt_imageio.service import activation

# Descriptors for the test begin here: the low ones are in use.
FIRST = 200


@pytest.fixture
def take():
    """Return a function that passes sockets, as the service manager does, and returns what is made of them."""
    taken = []

    def take(*named, **changes):
        for number, (_, sock) in enumerate(named):
            os.dup2(sock.fileno(), FIRST + number)
            sock.close()
        environ = {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(named)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in named),
            **changes,
        }
        found = activation.inherited(environ, FIRST).listeners
        taken.extend(found.values())
        assert environ == {}
        return found

    yield take
    for listener in taken:
        listener.close()


def tcp():
    return socket.create_server(("127.0.0.1", 0))


def test_nothing():
    assert activation.inherited({}) == activation.Inherited()


def test_by_name(take):
    remote, control = tcp(), tcp()
    ports = [sock.getsockname()[1] for sock in (remote, control)]
    found = take(("remote", remote), ("control", control))
    assert {name: listener.address.port for name, listener in found.items()} == dict(zip(("remote", "control"), ports))
    # Programs that we start have none of them.
    assert not os.get_inheritable(found["remote"].sockets[0].fileno())


def test_several_of_one_name(take):
    """As with two ListenStream= in a unit."""
    assert len(take(("remote", tcp()), ("remote", tcp()))["remote"].sockets) == 2


def test_unknown_name(take, caplog):
    assert take(("ovirt-imageio.socket", tcp())) == {}
    assert "opened a socket named 'ovirt-imageio.socket': expected one of remote, local" in caplog.text


def test_no_names(take, caplog):
    assert take(("x", tcp()), LISTEN_FDNAMES="") == {}
    assert "named ''" in caplog.text


@pytest.mark.parametrize("changes", [{"LISTEN_PID": "1"}, {"LISTEN_FDS": "some"}, {"LISTEN_PID": ""}])
def test_for_another_process(take, changes):
    assert take(**changes) == {}


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_socket_that_does_not_listen(take, kind):
    with pytest.raises(errors.InvalidValue, match="a stream socket that listens"):
        take(("remote", socket.socket(socket.AF_INET, kind)))


def test_no_socket(take):
    with open("/dev/null") as file, pytest.raises(errors.InvalidValue, match="a stream socket that listens"):
        os.dup2(file.fileno(), FIRST)
        activation.inherited({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "remote"}, FIRST)
    with pytest.raises(OSError):
        os.fstat(FIRST)


def test_fewer_than_promised():
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "remote"}
    with pytest.raises(errors.InvalidValue, match="Bad file descriptor"):
        activation.inherited(environ, FIRST)


def test_what_is_kept_for_us():
    """It is not looked at yet: it may be anything, or nothing."""
    reader, writer = os.pipe()
    os.dup2(reader, FIRST)
    names = "tickets:kept-remote-1f2e3d4c:kept-remote-1f2e3d4c"
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": names}
    given = activation.inherited(environ, FIRST)
    assert given.listeners == {}
    assert given.kept == {"tickets": [FIRST], "kept-remote-1f2e3d4c": [FIRST + 1, FIRST + 2]}
    assert not os.get_inheritable(FIRST)
    for descriptor in (reader, writer, FIRST):
        os.close(descriptor)
