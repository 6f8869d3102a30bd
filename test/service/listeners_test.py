"""Listeners are made as configured, all or none of them."""

import dataclasses
import http.client
import os
import socket
import subprocess
import sys
import time

import pytest
from fakes.waiting import DEADLINE
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.backends import registry
from ovirt_imageio.backends.base import Terms
from ovirt_imageio.config import Config
from ovirt_imageio.config.sections import Remote
from ovirt_imageio.httpd.listener import ListenError
from ovirt_imageio.service.listeners import Listeners, backend_options, limits


def configured(tmp_path, **sections):
    """Return a configuration that disturbs no other daemon, with some keys changed."""
    changes = {
        "tls": {"enable": False},
        "remote": {"host": "127.0.0.1", "port": 0},
        "local": {"socket": ""},
        "control": {"socket": str(tmp_path / "control.sock")},
    }
    for name, keys in sections.items():
        changes.setdefault(name, {}).update(keys)
    default = Config()
    return dataclasses.replace(
        default, **{name: dataclasses.replace(getattr(default, name), **keys) for name, keys in changes.items()}
    )


@pytest.fixture
def serving(tmp_path):
    """Return a function that starts listeners, which are stopped when the test is over."""
    started = []

    def serving(**sections):
        listeners = Listeners(configured(tmp_path, **sections))
        started.append(listeners)
        listeners.start()
        return listeners

    yield serving
    for listeners in started:
        listeners.stop()


def ask(address, path="/info"):
    """Return the status of an answer."""
    connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
    connection.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    connection.sock.settimeout(DEADLINE)
    try:
        connection.sock.connect(address)
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def test_all_three(serving, tmp_path):
    listeners = serving()
    assert ask(("127.0.0.1", listeners.remote.port)) == 200
    assert listeners.local.path.startswith("\0")
    assert ask(listeners.local.path) == 200
    assert listeners.control.path == str(tmp_path / "control.sock")
    assert ask(listeners.control.path, "/tickets") == 200


def test_modes(serving, tmp_path):
    listeners = serving(local={"socket": str(tmp_path / "local.sock")})
    assert os.stat(listeners.local.path).st_mode & 0o777 == 0o666
    assert os.stat(listeners.control.path).st_mode & 0o777 == 0o660


def test_only_remote(serving):
    listeners = serving(local={"enable": False}, control={"enable": False})
    assert (listeners.local, listeners.control) == (None, None)
    assert ask(("127.0.0.1", listeners.remote.port)) == 200


def test_control_over_tcp(serving):
    listeners = serving(control={"transport": "tcp", "port": 0})
    assert ask(("127.0.0.1", listeners.control.port), "/tickets") == 200


def test_metrics(serving):
    listeners = serving(metrics={"enable": True, "host": "127.0.0.1", "port": 0})
    address = ("127.0.0.1", listeners.metrics.port)
    assert [ask(address, path) for path in ("/metrics", "/health", "/info", "/tickets")] == [200, 200, 200, 404]


def test_no_metrics(serving):
    assert serving().metrics is None


def test_stop_releases_everything(serving):
    listeners = serving()
    listeners.stop()
    listeners.stop()
    assert not os.path.exists(listeners.control.path)
    for address in (("127.0.0.1", listeners.remote.port), listeners.local.path):
        with pytest.raises(ConnectionRefusedError):
            ask(address)


def test_all_or_none(tmp_path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "control.sock"))
        other.listen()
        with pytest.raises(ListenError, match="another process listens there"):
            Listeners(configured(tmp_path, local={"socket": str(tmp_path / "local.sock")}))
    assert not os.path.exists(tmp_path / "local.sock")


def test_never_started(tmp_path):
    Listeners(configured(tmp_path)).stop()


def test_description(serving):
    assert serving().describe() == "Active transfers: 0, connections: 0"


def test_description_of_what_runs(serving):
    listeners = serving()
    assert listeners.describe_running() == "0 connections"
    with socket.create_connection(("127.0.0.1", listeners.remote.port), timeout=DEADLINE) as client:
        client.sendall(b"GET /info HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        assert listeners.describe_running() == "1 connections"


def test_certificate_is_reloaded(tmp_path):
    made = certificates.certificate()
    copy = tmp_path / "cert.pem"
    with open(made.cert_file) as file:
        copy.write_text(file.read())
    tls = {"enable": True, "cert_file": str(copy), "key_file": made.key_file}
    listeners = Listeners(configured(tmp_path, tls=tls))
    try:
        listeners.reload_certificate()
        assert listeners.expires > time.time()
        copy.write_text("")
        with pytest.raises(errors.ConfigError, match="cert_file"):
            listeners.reload_certificate()
    finally:
        listeners.stop()


def test_bad_certificate_binds_nothing(tmp_path):
    tls = {"enable": True, "cert_file": "/nowhere", "key_file": "/nowhere"}
    with pytest.raises(errors.ConfigError, match="cert_file"):
        Listeners(configured(tmp_path, tls=tls))
    assert not os.path.exists(tmp_path / "control.sock")


@pytest.mark.parametrize("section", ["tls", "backend_http"])
def test_error_names_the_section_of_the_authorities(tmp_path, caplog, section):
    ca_file = str(tmp_path / "ca.pem")
    config = configured(tmp_path, **{section: {"ca_file": ca_file}})
    options = backend_options(config)
    with pytest.raises(errors.BackendUntrusted):
        registry.open_backend("https://localhost/images/1", Terms(options))
    assert f"[{section}] ca_file = {ca_file!r}"[:80] in caplog.text


def test_sessions_need_the_engine(tmp_path):
    sessions = {"enable": True, "engine_cert_file": "/nowhere", "engine_ca_cert_file": "/nowhere"}
    with pytest.raises(errors.ConfigError, match=r"\[sessions\] engine_cert_file = '/nowhere'"):
        Listeners(configured(tmp_path, sessions=sessions))


WITH_SESSIONS = """
import sys
from ovirt_imageio import errors
from ovirt_imageio.backends import registry
from ovirt_imageio.config import Config
from ovirt_imageio.config.sections import Sessions
from ovirt_imageio.service.listeners import backend_options, open_sessions
config = Config(sessions=Sessions(enable=True, engine_cert_file=sys.argv[1], engine_ca_cert_file=sys.argv[1]))
try:
    open_sessions(config, backend_options(config), None)
except errors.ConfigError as error:
    print(error)
"""


def test_sessions_need_cryptography(tmp_path):
    """Everything can be imported without it."""
    (tmp_path / "cryptography.py").write_text("raise ImportError('as if it were not installed')")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", WITH_SESSIONS, certificates.certificate().cert_file]
    done = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE)
    assert done.stdout.decode().startswith("[sessions] enable = 'true': expected the Python package 'cryptography'")


def test_limit_of_connections(serving):
    listeners = serving(remote={"max_connections": 1})
    address = ("127.0.0.1", listeners.remote.port)
    with socket.create_connection(address, timeout=DEADLINE) as first:
        first.sendall(b"GET /info HTTP/1.1\r\n\r\n")
        assert first.recv(1) == b"H"
        assert ask(address) == 503
        # Those who manage tickets are never locked out by those who use them.
        assert ask(listeners.control.path) == 200


@pytest.mark.parametrize("all_of_them, of_one, expected", [(1000, 0, 750), (1, 0, 1), (1000, 20, 20), (100, 100, 100)])
def test_connections_of_one_client(all_of_them, of_one, expected):
    remote = Remote(max_connections=all_of_them, max_client_connections=of_one)
    found = limits(dataclasses.replace(Config(), remote=remote))
    assert (found.connections, found.client_connections) == (all_of_them, expected)


def test_tickets_go_on(serving, tmp_path):
    listeners = serving()
    listeners.store.add({"uuid": "1234", "size": 512, "url": "file:///disk", "ops": ["read"], "timeout": 60})
    listeners.stop()
    document = listeners.record()
    assert [record["ticket"]["uuid"] for record in document["tickets"]] == ["1234"]
    assert document["sessions"] == []
    other = Listeners(configured(tmp_path))
    other.resume(document)
    assert other.store.info("1234")["size"] == 512
    other.stop()


@pytest.mark.parametrize("document", [{}, {"tickets": []}, {"tickets": "1234", "sessions": []}])
def test_nothing_goes_on(serving, document):
    with pytest.raises(errors.InvalidValue, match="expected a list"):
        serving().resume(document)


def test_opened(serving):
    listeners = serving()
    assert {name: listener.address for name, listener in listeners.opened().items()} == {
        "remote": listeners.remote.address,
        "local": listeners.local.address,
        "control": listeners.control.address,
    }
