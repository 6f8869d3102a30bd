"""What would keep the daemon from starting is found without starting it, all of it."""

import os
import re
import socket
import tempfile
from pathlib import Path

import pytest
from real import certificates, daemon

from ovirt_imageio import config
from ovirt_imageio.net.tls import ServerContext
from ovirt_imageio.service import inspection

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def find(tmp_path):
    """Return a function that returns the mistakes in a configuration, as one text."""

    def find(text=""):
        folder = daemon.write_config(tmp_path, text)
        return "\n".join(map(str, inspection.find_mistakes(config.load(folder, folder / "no-vendor"))))

    return find


def test_good(find):
    assert find() == ""


def test_accounts(find):
    dropping = "[daemon]\ndrop_privileges = yes\n"
    found = find(f"{dropping}user_name = no-such-user\ngroup_name = no-such-group\n").splitlines()
    assert [line.partition(":")[0] for line in found] == [
        "[daemon] user_name = 'no-such-user'",
        "[daemon] group_name = 'no-such-group'",
    ]
    assert find(f"{dropping}user_name = root\ngroup_name = no-such\n").startswith("[daemon] group_name = 'no-such'")
    assert find("[daemon]\nuser_name = no-such-user\n") == ""


def test_every_missing_file(find, tmp_path):
    found = find(
        "[tls]\ncert_file = /nowhere/cert\nkey_file = /nowhere/key\n[backend_http]\nca_file = /nowhere/ca\n"
        "[sessions]\nenable = yes\nengine_cert_file = /nowhere/engine\nengine_ca_cert_file = /nowhere/authority\n"
    )
    keys = ["tls cert_file", "tls key_file", "backend_http ca_file", "sessions engine_cert_file"]
    assert re.findall(r"^\[(\S+)\] (\S+) .*no such file", found, re.MULTILINE) == [
        *(tuple(key.split()) for key in keys),
        ("sessions", "engine_ca_cert_file"),
    ]
    assert len(found.splitlines()) == 5


def test_files_with_something_else_in_them(find, tmp_path):
    other = certificates.certificate("second")
    (tmp_path / "ca").write_text("no certificate")
    found = find(f"[tls]\nkey_file = {other.key_file}\n[backend_http]\nca_file = {tmp_path}/ca\n").splitlines()
    assert "expected the private key of the certificate" in found[0]
    assert found[1].startswith("[backend_http] ca_file")
    assert len(found) == 2
    # One file that is missing hides nothing of the others in its section.
    found = find(f"[tls]\nkey_file = {other.key_file}\nca_file = /nowhere/ca\n").splitlines()
    assert found[0].startswith("[tls] ca_file = '/nowhere/ca'")
    assert "expected the private key of the certificate" in found[1]


def test_expired_certificate(find, tmp_path):
    loaded = config.load(daemon.write_config(tmp_path), tmp_path / "no-vendor")
    expires = ServerContext(loaded.tls.cert_file, loaded.tls.key_file).expires
    assert list(inspection.find_mistakes(loaded, now=expires)) == []
    [mistake] = inspection.find_mistakes(loaded, now=expires + 1)
    assert re.search(r"\[tls\] cert_file = .* a certificate that is valid, not until \d{4}-\d\d-\d\d", str(mistake))


def test_engine_certificate(find, tmp_path):
    pytest.importorskip("cryptography")
    (tmp_path / "pem").write_text("no certificate")
    keys = "".join(f"{key} = {tmp_path}/pem\n" for key in ("engine_cert_file", "engine_ca_cert_file"))
    assert find(f"[sessions]\nenable = yes\n{keys}").startswith("[sessions] engine_cert_file = ")


@needs_root
@pytest.mark.parametrize("mode, good", [(0o700, False), (0o755, True)])
def test_authorities_that_the_user_cannot_read(find, mode, good):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ca.pem")
        path.write_bytes(Path(certificates.certificate().ca_file).read_bytes())
        os.chmod(folder, mode)
        dropping = "[daemon]\ndrop_privileges = yes\nuser_name = nobody\ngroup_name = root\n"
        found = find(f"{dropping}[backend_http]\nca_file = {path}\n")
    assert found.startswith("" if good else f"[backend_http] ca_file = '{path}': expected a file that we can read")
    assert bool(found) != good


def test_log_folder(find):
    assert "log handlers that can be started" in find('[handler_logfile]\nargs = ("/nowhere/daemon.log",)\n')


def test_ports_in_use(find):
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [taken.getsockname()[1] for taken in (one, two)]
        text = f"[remote]\nhost = 127.0.0.1\nport = {ports[0]}\n[control]\ntransport = tcp\nport = 0\n"
        found = find(text)
        assert re.findall(r"Cannot listen on (\S+): address already in use", found) == [f"127.0.0.1:{ports[0]}"]
        # A server answers where the control listener should be: the daemon is running, and has both.
        assert find(text.replace("port = 0", f"port = {ports[1]}")) == ""


def test_port_of_metrics(find):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"[metrics]\nhost = 127.0.0.1\nport = {taken.getsockname()[1]}\n"
        assert find(text) == ""
        assert "Cannot listen on 127.0.0.1" in find(f"{text}enable = yes\n")


def test_sockets_without_a_folder(find):
    found = find("[local]\nsocket = /nowhere/local\n[control]\nsocket = /nowhere/control\n").splitlines()
    assert [line.partition(":")[0] for line in found] == [
        "[local] socket = '/nowhere/local'",
        "[control] socket = '/nowhere/control'",
    ]


def test_default_socket_before_the_first_start(find):
    """The unit makes its folder."""
    assert find("[control]\nsocket = /run/ovirt-imageio/sock\n") == ""


def test_listeners_that_are_off(find):
    assert find("[local]\nenable = no\nsocket = /nowhere/x\n[control]\nenable = no\nsocket = /nowhere/y\n") == ""
