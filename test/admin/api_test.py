"""The client library against the real control service, and against services that misbehave."""

import dataclasses
import json
import socket
import threading
import types

import pytest
from fakes.controlserver import ControlServer
from fakes.waiting import DEADLINE

from ovirt_imageio import admin
from ovirt_imageio.config import Config
from ovirt_imageio.config.sections import Control
from ovirt_imageio.version import __version__

TICKET = {"uuid": "c0ffee00-5bd1", "size": 1024, "url": "file:///disk", "ops": ["read"], "timeout": 300}


def config(**control):
    return dataclasses.replace(Config(), control=Control(**control))


@pytest.fixture
def client(server):
    with admin.Client(config(socket=server.path)) as client:
        yield client


def test_all_names():
    for name in admin.__all__:
        assert getattr(admin, name)
    assert admin.__version__ == __version__
    assert admin.DEFAULT_CONF_DIR == "/etc/ovirt-imageio"
    assert issubclass(admin.ClientError, admin.Error)
    assert issubclass(admin.ServerError, admin.Error)
    namespace = {}
    exec("from ovirt_imageio.admin import *", namespace)
    assert set(admin.__all__) <= set(namespace)


def test_life_of_a_ticket(client):
    client.add_ticket(TICKET)
    assert client.get_ticket(TICKET["uuid"])["timeout"] == 300
    client.mod_ticket(TICKET["uuid"], {"timeout": 600})
    assert client.get_ticket(TICKET["uuid"])["remaining"] > 500
    [info] = client.list_tickets()
    assert info["uuid_prefix"] == "c0ffee"
    for _ in range(2):
        client.del_ticket(TICKET["uuid"])
    assert client.list_tickets() == []


def test_tcp(tmp_path):
    with ControlServer(tmp_path, tcp=True) as server, admin.Client(config(transport="tcp", port=server.port)) as client:
        client.add_ticket(TICKET)
        assert client.get_ticket(TICKET["uuid"])["size"] == 1024


def test_id_is_escaped(client):
    client.add_ticket({**TICKET, "uuid": "a b?c#d%"})
    assert client.get_ticket("a b?c#d%")["uuid"] == "a b?c#d%"
    client.del_ticket("a b?c#d%")
    assert client.list_tickets() == []


def test_wait(client):
    client.add_ticket(TICKET)
    version = client.get_ticket(TICKET["uuid"])["version"]
    client.mod_ticket(TICKET["uuid"], {"timeout": 5})
    info = client.wait(TICKET["uuid"], since=version, timeout=DEADLINE)
    assert info["version"] > version
    assert client.wait(TICKET["uuid"], since=info["version"], timeout=0)["version"] == info["version"]
    assert client.wait(TICKET["uuid"], timeout=0)["version"] == info["version"]


@pytest.mark.parametrize(
    "call, code, words",
    [
        (lambda client: client.add_ticket({**TICKET, "size": -1}), 400, "Invalid size -1"),
        (lambda client: client.get_ticket("unknown"), 404, "No such ticket"),
        (lambda client: client.wait("unknown"), 404, "No such ticket"),
        (lambda client: client.mod_ticket("unknown", {"timeout": 1}), 404, "No such ticket"),
        (lambda client: client.mod_ticket("unknown", {}), 400, "Invalid timeout"),
    ],
)
def test_refused(client, call, code, words):
    with pytest.raises(admin.ServerError) as e:
        call(client)
    assert e.value.code == code
    assert words in e.value.message
    assert str(e.value).startswith(f"{code} ")
    # The connection is still good.
    assert client.list_tickets() == []


@pytest.mark.parametrize("ticket", [None, [], {}, {"uuid": ""}, {"uuid": 1}])
def test_no_ticket(client, ticket):
    with pytest.raises(ValueError, match="with a uuid"):
        client.add_ticket(ticket)


def test_empty_id_does_not_mean_all(client):
    client.add_ticket(TICKET)
    with pytest.raises(ValueError, match="must not be empty"):
        client.del_ticket("")
    assert len(client.list_tickets()) == 1


def test_profile(tmp_path):
    class Profiler:
        def __init__(self):
            self.calls = []

        def is_running(self):
            return False

        def start(self, clock):
            self.calls.append(clock)

        def stop(self):
            self.calls.append("stop")

    profiler = Profiler()
    with ControlServer(tmp_path, profiler=profiler) as server, admin.Client(config(socket=server.path)) as client:
        client.start_profile()
        client.start_profile("wall")
        client.stop_profile()
    assert profiler.calls == ["cpu", "wall", "stop"]


def test_nobody_listens(tmp_path):
    client = admin.Client(config(socket=str(tmp_path / "missing")))
    with pytest.raises(admin.ClientError, match="missing: No such file or directory; is ovirt-imageio running"):
        client.list_tickets()


@pytest.mark.parametrize("control, words", [({"transport": "carrier"}, "carrier"), ({"socket": ""}, "random name")])
def test_bad_configuration(control, words):
    with pytest.raises(ValueError, match=words):
        admin.Client(config(**control))


def test_transport_in_any_case(server):
    with admin.Client(config(transport="UNIX", socket=server.path)) as client:
        assert client.list_tickets() == []


def test_slow_removal_outlives_the_timeout(server):
    """The service may wait for 60 seconds, which must not surprise a client with the same time-out."""
    client = admin.Client(config(socket=server.path, remove_timeout=60), timeout=60)
    with client:
        client.del_ticket("unknown")
        assert client._connection.sock.gettimeout() > 60
        client.list_tickets()
        assert client._connection.sock.gettimeout() == 60


def test_load_config(tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "test.conf").write_text("[control]\nsocket = /my/socket\n")
    assert admin.load_config(str(tmp_path)).control.socket == "/my/socket"


def test_load_config_fails(tmp_path):
    with pytest.raises(ValueError, match=r"conf\.d"):
        admin.load_config(str(tmp_path))


# --- Services that misbehave ---


@pytest.fixture
def script(tmp_path):
    """Answer each connection with the next list of byte strings, one for each request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "script.sock"))
    listener.listen()
    threads = []

    def serve(connections):
        def run():
            for answers in connections:
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(DEADLINE)
                    for answer in answers:
                        assert peer.recv(65536)
                        peer.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return config(socket=str(tmp_path / "script.sock"))

    yield serve
    for thread in threads:
        thread.join(DEADLINE)
    listener.close()


GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]"


def test_kept_alive(script):
    with admin.Client(script([[GOOD, GOOD]])) as client:
        assert client.list_tickets() == []
        assert client.list_tickets() == []


def test_closed_while_idle(script):
    with admin.Client(script([[GOOD], [GOOD]])) as client:
        assert client.list_tickets() == []
        assert client.list_tickets() == []


@pytest.mark.parametrize(
    "answer, words",
    [
        (b"", "closed connection"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n[]", "IncompleteRead"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[[", "not JSON"),
    ],
)
def test_bad_answers(script, answer, words):
    with admin.Client(script([[answer]])) as client, pytest.raises(admin.ClientError, match=words):
        client.list_tickets()


def test_no_answer(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent.sock"))
        listener.listen()
        client = admin.Client(config(socket=str(tmp_path / "silent.sock")), timeout=0.05)
        with client, pytest.raises(admin.ClientError, match="timed out"):
            client.list_tickets()


def test_refusal_in_a_foreign_encoding(script):
    answer = b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\n\xff\xfe\n"
    with admin.Client(script([[answer]])) as client, pytest.raises(admin.ServerError) as e:
        client.list_tickets()
    assert e.value.code == 500
    json.dumps(e.value.message)


def test_configuration_of_others(server):
    """What the released library asks of a configuration, and no more."""
    control = types.SimpleNamespace(transport="unix", socket=server.path, port=0)
    with admin.Client(types.SimpleNamespace(control=control)) as client:
        client.add_ticket(TICKET)
        client.del_ticket(TICKET["uuid"])
        assert client.list_tickets() == []


def test_find(client):
    client.add_ticket(TICKET)
    client.add_ticket({**TICKET, "uuid": "a/b".replace("/", "?"), "transfer_id": "t&1"})
    assert [info["uuid"] for info in client.find_tickets("c0ffee")] == [TICKET["uuid"]]
    assert [info["uuid"] for info in client.find_tickets("t&")] == ["a?b"]
    assert client.find_tickets("unknown") == []
    with pytest.raises(ValueError, match="must not be empty"):
        client.find_tickets("")


def test_remove_all(client):
    client.add_ticket(TICKET)
    client.del_all_tickets()
    assert client.list_tickets() == []
