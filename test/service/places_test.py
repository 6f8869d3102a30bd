"""Listeners are where the configuration says, or on what the service manager opened."""

import dataclasses
import socket

import pytest

from ovirt_imageio.config import Config
from ovirt_imageio.httpd.listener import TcpAddress, UnixAddress, adopt
from ovirt_imageio.service import places


def configured(**sections):
    default = Config()
    changes = {name: dataclasses.replace(getattr(default, name), **keys) for name, keys in sections.items()}
    return dataclasses.replace(default, **changes)


@pytest.fixture
def opened():
    """A listener on a socket that is there already."""
    listener = adopt([socket.create_server(("127.0.0.1", 0))])
    yield listener
    listener.close()


def test_defaults():
    found = places.find(configured(), {})
    assert found == {
        "remote": TcpAddress("::", 54322),
        "local": UnixAddress("\0/org/ovirt/imageio", 0o666),
        "control": UnixAddress("/run/ovirt-imageio/sock", 0o660),
    }


def test_everything():
    config = configured(
        local={"socket": ""}, control={"transport": "tcp", "port": 7}, metrics={"enable": True, "host": "", "port": 8}
    )
    found = places.find(config, {})
    assert found["local"].is_abstract
    assert found["control"] == TcpAddress("localhost", 7, prefer_ipv4=True)
    assert found["metrics"] == TcpAddress("", 8)


def test_nothing():
    assert set(places.find(configured(local={"enable": False}, control={"enable": False}), {})) == {"remote"}


def test_opened_socket(opened, caplog):
    for port in (opened.address.port, 0):
        assert places.find(configured(remote={"port": port}), {"remote": opened})["remote"] is opened
    assert caplog.text == ""


def test_opened_socket_of_another_port(opened, caplog):
    """The sockets are there: the unit wins, and the log tells."""
    assert places.find(configured(), {"remote": opened})["remote"] is opened
    assert f"[remote] listens on {opened.address}, which the service manager opened, not on" in caplog.text


def test_opened_socket_of_another_kind(opened, caplog):
    places.find(configured(), {"control": opened})
    assert "not on /run/ovirt-imageio/sock" in caplog.text


def test_opened_socket_that_is_not_enabled(opened, caplog):
    assert "metrics" not in places.find(configured(), {"metrics": opened})
    assert "for [metrics], which is not enabled" in caplog.text
    assert opened.sockets[0].fileno() == -1


def test_opened_unix_socket(tmp_path, caplog):
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        listener = adopt([sock])
        found = places.find(configured(local={"socket": path}), {"local": listener})
    assert caplog.text == ""
    assert places.path_of(found["local"]) == path
    assert places.path_of(UnixAddress("/x")) == "/x"


def test_another_random_name(caplog):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("\0imageio-test-random")
        sock.listen()
        found = places.find(configured(local={"socket": ""}), {"local": adopt([sock])})
    assert places.path_of(found["local"]) == "\0imageio-test-random"
    assert caplog.text == ""


CHANGES = [
    {"remote": {"port": 7}},
    {"remote": {"host": "localhost"}},
    {"local": {"socket": ""}},
    {"local": {"enable": False}},
    {"control": {"transport": "tcp"}},
    {"control": {"socket": "/x"}},
    {"metrics": {"enable": True}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_configured_in_another_way(change):
    (section,) = change
    before, after = places.configured(configured()), places.configured(configured(**change))
    assert before.get(section) != after.get(section)
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {section}
