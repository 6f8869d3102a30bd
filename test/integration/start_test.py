"""What keeps the daemon from starting is told in one line; what does not, does not."""

import contextlib
import dataclasses
import functools
import http.client
import itertools
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fakes import ports
from fakes.waiting import wait_until
from real import certificates, daemon

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


# What the unit tells systemd not to restart.
MISCONFIGURED = 78


def fail(folder, *arguments, status=MISCONFIGURED, **options):
    """Start a daemon that does not come up; return the one line that it says."""
    with daemon.start(folder, arguments, stderr=subprocess.PIPE, **options) as process:
        _, said = process.communicate(timeout=daemon.DEADLINE)
    assert process.returncode == status
    lines = said.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def download(own, url):
    return urllib.request.urlopen(url, context=own.tls)


def test_no_configuration(tmp_path):
    said = fail(tmp_path)
    assert re.search(r"configuration directory '.*/etc': expected at least one file conf\.d", said)
    # Many who type the name of a program want to share a disk, and have no daemon to configure.
    assert said.endswith("type: ovirt-imageio serve IMAGE")


def test_bad_value(tmp_path):
    daemon.write_config(tmp_path, "[remote]\nport = many\n")
    assert fail(tmp_path).endswith(
        f"[remote] port = 'many' in {tmp_path}/etc/conf.d/60-test.conf: expected an integer between 0 and 65535"
    )


def test_no_key(tmp_path):
    daemon.write_config(tmp_path, "[tls]\nkey_file =\n")
    assert "[tls] key_file = '': expected a file" in fail(tmp_path)


def test_missing_key_file(tmp_path):
    daemon.write_config(tmp_path, "[tls]\nkey_file = /nowhere/key.pem\n")
    assert "[tls] key_file = '/nowhere/key.pem': expected a file that we can read: no such file" in fail(tmp_path)


def test_key_of_another_certificate(tmp_path):
    other = certificates.certificate("second")
    daemon.write_config(tmp_path, f"[tls]\nkey_file = {other.key_file}\n")
    assert "expected the private key of the certificate in" in fail(tmp_path)


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon.write_config(tmp_path, f"[remote]\nhost = 127.0.0.1\nport = {port}\n")
        assert f"Cannot listen on 127.0.0.1:{port}: address already in use" in fail(tmp_path, status=1)


def test_live_control_socket(tmp_path):
    with daemon.running(tmp_path) as own:
        assert "another process listens there" in fail(tmp_path, status=1)
        assert own.control("GET", "/info")[0] == 200


def test_stale_control_socket(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    with daemon.running(tmp_path) as own:
        assert own.control("GET", "/info")[0] == 200


def test_no_log_folder(tmp_path):
    daemon.write_config(tmp_path, '[handler_logfile]\nargs = ("/nowhere/daemon.log",)\n')
    assert "log handlers that can be started (FileNotFoundError" in fail(tmp_path)


def test_control_over_tcp(tmp_path):
    with daemon.running(tmp_path, "[control]\ntransport = tcp\nport = 0\n") as own:
        address = own.addresses["control"]
        assert address.startswith("localhost:")
        with urllib.request.urlopen(f"http://127.0.0.1:{address.rpartition(':')[2]}/info") as response:
            assert response.status == 200


def test_plain_http(tmp_path):
    with daemon.running(tmp_path, "[tls]\nenable = no\n[local]\nenable = no\n[control]\nenable = no\n") as own:
        assert set(own.addresses) == {"remote"}
        with urllib.request.urlopen(f"http://localhost:{own.port}/info/") as response:
            assert response.status == 200


def test_initial_ticket(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(b"disk" * 1024)
    ticket = tmp_path / "ticket.json"
    ticket.write_text(f'{{"uuid": "initial", "size": 4096, "url": "file://{image}", "timeout": 60, "ops": ["read"]}}')
    with (
        daemon.running(tmp_path, arguments=["--ticket", str(ticket)]) as own,
        download(own, own.url("initial")) as response,
    ):
        assert response.read() == b"disk" * 1024


BAD_TICKETS = [(None, "expected a file that can be read"), ("{", "expected JSON"), ('{"uuid": "x"}', "Invalid ")]


@pytest.mark.parametrize("text, message", BAD_TICKETS)
def test_bad_initial_ticket(tmp_path, text, message):
    ticket = tmp_path / "ticket.json"
    if text is not None:
        ticket.write_text(text)
    daemon.write_config(tmp_path)
    assert message in fail(tmp_path, "--ticket", str(ticket))


def test_unknown_keys_are_warned_of(tmp_path):
    with daemon.running(tmp_path, "[remote]\nprot = 1\n") as own:
        assert re.search(r"WARNING .* Unknown key 'prot' .*did you mean 'port'", own.log())


def test_log_to_stderr(tmp_path):
    daemon.write_config(
        tmp_path,
        "[handlers]\nkeys = stderr\n[logger_root]\nlevel = ERROR\nhandlers = stderr\n[tls]\nkey_file = /nowhere\n",
    )
    assert re.search(r"ERROR .*\[server\] .*key_file", fail(tmp_path))


# --- The service manager ---


def test_systemd_is_told(tmp_path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(daemon.DEADLINE)
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}
        with daemon.running(tmp_path, environ=environ) as own:
            # What it keeps for the next process is told before: restart_test.py looks at that.
            told = iter(lambda: manager.recv(1000), b"")
            messages = list(itertools.islice((text for text in told if not text.startswith(b"FDSTORE=")), 3))
            own.process.send_signal(signal.SIGTERM)
            # Read on meanwhile: few messages fit on the way, and the daemon does not wait for a reader.
            while messages[-1] != b"STOPPING=1":
                messages.append(manager.recv(1000))
            assert own.process.wait(daemon.DEADLINE) == 0
            # From then on it only leaves what the next process needs.
            manager.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    assert manager.recv(1000).startswith((b"FDSTORE", b"BARRIER"))
    assert messages[0] == b"READY=1"
    assert messages[1].startswith(b"STATUS=Active transfers: 0,")
    assert messages[2] == b"WATCHDOG=1"


def test_systemd_is_told_why_the_start_failed(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(daemon.DEADLINE)
        daemon.write_config(tmp_path, "[remote]\nport = many\n")
        fail(tmp_path, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(1000).startswith(b"STATUS=Cannot start: [remote] port = 'many' in ")


def test_systemd_may_be_left_out(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        text = "[daemon]\nsystemd_enable = no\n"
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with daemon.running(tmp_path, text, environ=environ), pytest.raises(BlockingIOError):
            manager.recv(1000)


# As systemd.exec(5) says: the first descriptor is 3, and the process has the id.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="remote")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def activated(tmp_path):
    """A socket that listens, and the wrapper of a daemon that gets it."""
    with socket.create_server(("localhost", 0)) as listening:
        descriptor = listening.fileno()
        wrapper = [sys.executable, "-c", ACTIVATE, str(descriptor)]
        yield listening, {"wrapper": wrapper, "pass_fds": [descriptor]}


def test_sockets_of_systemd(tmp_path, activated):
    """A client that comes while the service restarts waits, and is not refused."""
    listening, options = activated
    with daemon.running(tmp_path, **options) as own:
        assert own.port == listening.getsockname()[1]
        assert own.stop() == 0
        with contextlib.closing(own.connect()) as waiting:
            raw = socket.create_connection(listening.getsockname(), timeout=daemon.DEADLINE)
            with raw, daemon.running(tmp_path, **options):
                waiting.sock = own.tls.wrap_socket(raw, server_hostname="localhost")
                waiting.request("GET", "/info")
                assert waiting.getresponse().status == 200


class Client(threading.Thread):
    """Connects and asks, over and over, until it is stopped."""

    def __init__(self, port):
        super().__init__()
        self.tls = ssl.create_default_context(cafile=certificates.certificate().ca_file)
        self.port = port
        self.is_over = threading.Event()
        self.answers = 0
        self.failures = []

    def has_answers(self, count):
        return self.answers >= count

    def run(self):
        while not self.is_over.is_set():
            connection = http.client.HTTPSConnection("localhost", self.port, context=self.tls, timeout=daemon.DEADLINE)
            try:
                connection.request("GET", "/info")
                assert connection.getresponse().status == 200
                self.answers += 1
            except Exception as error:
                self.failures.append(error)
            finally:
                connection.close()


@pytest.mark.slow
def test_restarts_cut_no_client(tmp_path, activated):
    listening, options = activated
    clients = [Client(listening.getsockname()[1]) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        for _ in range(4):
            with daemon.running(tmp_path, **options):
                for client in clients:
                    wait_until(functools.partial(client.has_answers, client.answers + 5))
    finally:
        # Those that wait in the socket are answered once more.
        with daemon.running(tmp_path, **options):
            for client in clients:
                client.is_over.set()
            for client in clients:
                client.join(daemon.DEADLINE)
    assert [client.failures for client in clients] == [[], [], []]


def test_socket_of_systemd_on_another_port(tmp_path, activated):
    listening, options = activated
    with ports.reserved() as port, daemon.running(tmp_path, f"[remote]\nport = {port}\n", **options) as own:
        assert own.port == listening.getsockname()[1]
        assert re.search(rf"\[remote\] listens on .* the service manager opened, not on .*:{port}", own.log())


# --- Who it is ---


def identity(pid):
    """Return user ids, group ids and supplementary groups of a process."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return [[int(number) for number in fields[name].split()] for name in ("Uid", "Gid", "Groups")]


@pytest.fixture
def temporary_user():
    """A user that is a member of two groups; gone when the test is over."""
    # Its own: the tests may run twice at once.
    name = f"imageio-{os.getpid()}"
    subprocess.run(["useradd", "--system", "--user-group", "--groups", "disk", name], check=True)
    yield pwd.getpwnam(name)
    subprocess.run(["userdel", name], check=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def public_folder():
    """A folder that other users get to, unlike those of the test runner."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@needs_root
def test_privileges_are_dropped(public_folder, temporary_user):
    folder, user = public_folder, temporary_user
    text = f"[daemon]\ndrop_privileges = yes\nuser_name = {user.pw_name}\ngroup_name = {user.pw_name}\n"
    with daemon.running(folder, text) as own:
        uids, gids, groups = identity(own.process.pid)
        assert uids == [user.pw_uid] * 4
        assert gids == [user.pw_gid] * 4
        assert set(groups) == set(os.getgrouplist(user.pw_name, user.pw_gid))
        for path in (folder, own.control_socket, folder / "daemon.log"):
            assert (os.stat(path).st_uid, os.stat(path).st_gid) == (user.pw_uid, user.pw_gid), path
        # What is not readable for that user is not served, root or not.
        image = folder / "image"
        image.write_bytes(bytes(4096))
        image.chmod(0o600)
        url = own.add_ticket(url=f"file://{image}", size=4096, ops=["read"])
        with pytest.raises(urllib.error.HTTPError):
            download(own, url)
        os.chown(image, user.pw_uid, user.pw_gid)
        with download(own, url) as response:
            assert response.read() == bytes(4096)
        assert own.stop() == 0
    assert not os.path.exists(own.control_socket)


@needs_root
def test_files_that_only_root_may_read(public_folder, temporary_user):
    """They serve until the next reload, which cannot read them: better to hear of that at the start."""
    folder, user = public_folder, temporary_user
    made = certificates.certificate()
    text = f"[daemon]\ndrop_privileges = yes\nuser_name = {user.pw_name}\ngroup_name = {user.pw_name}\n"
    (folder / "key.pem").write_bytes(Path(made.key_file).read_bytes())
    (folder / "key.pem").chmod(0o600)
    (folder / "cert.pem").write_bytes(Path(made.cert_file).read_bytes())
    text += f"[tls]\nkey_file = {folder}/key.pem\ncert_file = {folder}/cert.pem\n"
    text += f"[backend_http]\nca_file = {folder}/cert.pem\n"
    with daemon.running(folder, text) as own:
        [warning] = [line for line in own.log().splitlines() if "may not read" in line]
        assert f"The user {user.pw_name} may not read [tls] key_file = {folder}/key.pem" in warning
        own.process.send_signal(signal.SIGHUP)
        own.wait_log("keeping the old one")
        os.chown(folder / "key.pem", 0, user.pw_gid)
        (folder / "key.pem").chmod(0o640)
        own.process.send_signal(signal.SIGHUP)
        own.wait_log("Reloaded", 1)
        assert own.log().count("keeping the old one") == 1


@pytest.fixture
def private_install(public_folder):
    """The package where only root can read it, as in a checkout below /root."""
    private = public_folder / "private"
    shutil.copytree(daemon.ROOT / "ovirt_imageio", private / "ovirt_imageio")
    private.chmod(0o700)
    return private


IMPORTED = re.compile(r"^import time:.*\| +(\S+)$", re.MULTILINE)


@needs_root
def test_nothing_is_imported_by_the_user(public_folder, temporary_user, private_install):
    """The user may not be able to read the package; and an upgrade under a running daemon would mix two versions."""
    folder, user = public_folder, temporary_user
    text = f"[daemon]\ndrop_privileges = yes\nuser_name = {user.pw_name}\ngroup_name = {user.pw_name}\n"
    text += "[handlers]\nkeys = logfile, stderr\n[logger_root]\nhandlers = logfile, stderr\n"
    for name, path in dataclasses.asdict(certificates.certificate()).items():
        shutil.copy(path, folder / name)
        os.chown(folder / name, user.pw_uid, user.pw_gid)
    text += f"[tls]\ncert_file = {folder}/cert_file\nkey_file = {folder}/key_file\nca_file = {folder}/ca_file\n"
    image = folder / "image"
    image.write_bytes(bytes(4096))
    os.chown(image, user.pw_uid, user.pw_gid)
    heard = folder / "stderr"
    with (
        open(heard, "wb") as stderr,
        daemon.running(
            folder, text, environ={"PYTHONPROFILEIMPORTTIME": "1"}, root=private_install, stderr=stderr
        ) as own,
    ):
        url = own.add_ticket(url=f"file://{image}", size=4096)
        proxied = own.add_ticket(url=url, size=4096)
        unreachable = own.add_ticket(url="nbd:unix:/nowhere", size=4096)
        for address in (url, f"{url}/extents", f"{url}/checksum", proxied, f"{proxied}/extents"):
            with download(own, address) as response:
                assert response.read()
        with pytest.raises(urllib.error.HTTPError) as caught:
            download(own, unreachable)
        assert b"No such file" in caught.value.read()
        own.process.send_signal(signal.SIGHUP)
        own.wait_log("Reloaded")
        assert own.stop() == 0
    before, _, after = heard.read_text().partition("Running as user")
    assert "ovirt_imageio.backends.http" in IMPORTED.findall(before)
    assert IMPORTED.findall(after) == []


@needs_root
def test_authorities_that_only_root_may_read(public_folder, temporary_user):
    """Every image of another host would be refused: better not to start."""
    folder, user = public_folder, temporary_user
    (folder / "ca.pem").write_bytes(Path(certificates.certificate().ca_file).read_bytes())
    (folder / "ca.pem").chmod(0o600)
    text = f"[daemon]\ndrop_privileges = yes\nuser_name = {user.pw_name}\ngroup_name = {user.pw_name}\n"
    daemon.write_config(folder, f"{text}[backend_http]\nca_file = {folder}/ca.pem\n")
    # Another user cannot write what coverage measures, and would say so.
    said = fail(folder, environ={"COVERAGE_PROCESS_CONFIG": None})
    assert f"[backend_http] ca_file = '{folder}/ca.pem': expected a file that we can read" in said


def test_credentials(tmp_path):
    """Keys that systemd handed over, so that the daemon needs no right to read them where they are."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    made = certificates.certificate()
    text = "[tls]\n"
    for key in ("key_file", "cert_file", "ca_file"):
        shutil.copy(getattr(made, key), credentials / key)
        text += f"{key} = $CREDENTIALS_DIRECTORY/{key}\n"
    with daemon.running(tmp_path, text, environ={"CREDENTIALS_DIRECTORY": str(credentials)}) as own:
        connection = own.connect()
        connection.request("GET", "/info")
        assert connection.getresponse().status == 200
        connection.close()
    daemon.write_config(tmp_path, text)
    assert "[tls] cert_file = '$CREDENTIALS_DIRECTORY/cert_file': expected a file" in fail(tmp_path)


def test_relative_sockets(tmp_path):
    """In the current folder of the daemon; clients are told the whole path."""
    text = "[control]\nsocket = control.sock\n[local]\nsocket = local.sock\n"
    package = tmp_path / "ovirt_imageio"
    package.symlink_to(daemon.ROOT / "ovirt_imageio")
    with daemon.running(tmp_path, text, root=tmp_path) as own:
        assert own.addresses["local"] == str(tmp_path / "local.sock")
        assert own.control("GET", "/info")[0] == 200


@needs_root
def test_unknown_user(tmp_path):
    daemon.write_config(tmp_path, "[daemon]\ndrop_privileges = yes\nuser_name = no-such-user\n")
    assert "[daemon] user_name = 'no-such-user'" in fail(tmp_path)
    assert not os.path.exists(tmp_path / "control.sock")


def test_kept_privileges(tmp_path):
    with daemon.running(tmp_path) as own:
        assert identity(own.process.pid)[0] == [os.geteuid()] * 4


# --- How fast ---


HEAVY = {"ssl", "socket", "logging.config", "ovirt_imageio.httpd.server", "cryptography", "asyncio", "email"}


def test_showing_the_configuration_loads_little(tmp_path):
    daemon.write_config(tmp_path)
    code = (
        "from ovirt_imageio.service.cli import main\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    main(['-c', {str(tmp_path / 'etc')!r}, '--show-config'])"
    )
    assert HEAVY.isdisjoint(loaded_by(code))


def test_disks_of_every_kind_are_loaded_before_the_privileges_are_dropped():
    """Later the user of the service may not be able to read the package, or an update may have replaced it."""
    loaded = loaded_by("import ovirt_imageio.service.process")
    assert {f"ovirt_imageio.backends.{name}" for name in ("file", "http", "nbd")} <= loaded


def loaded_by(code: str) -> set[str]:
    """Return the modules that a program loads."""
    # Without what measures the coverage: that loads a lot.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, contextlib, io\n{code}\nprint(' '.join(sys.modules))"],
        check=True,
        stdout=subprocess.PIPE,
        env={**environ, "PYTHONPATH": str(daemon.ROOT)},
    )
    return set(done.stdout.decode().split())
