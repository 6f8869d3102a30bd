"""The real daemon: it starts, serves, reloads, drains and ends."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest
from fakes import ports
from fakes.waiting import wait_until
from real import certificates, daemon

from ovirt_imageio.origin.abilities import TLS

MiB = 1024**2


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with daemon.running(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture
def image(tmp_path):
    """A file of a few MiB that is different everywhere."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(4 * MiB))
    return path


def test_three_listeners(running):
    assert set(running.addresses) == {"remote", "local", "control"}


def test_download(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    with urllib.request.urlopen(url, context=running.tls) as response:
        assert response.read() == image.read_bytes()


def test_local_download(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    with contextlib.closing(running.connect_unix(running.local_socket)) as connection:
        connection.request("GET", url.partition(str(running.port))[2])
        assert connection.getresponse().read() == image.read_bytes()


def test_upload(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    data = os.urandom(4 * MiB)
    request = urllib.request.Request(url, data, method="PUT")
    with urllib.request.urlopen(request, context=running.tls) as response:
        assert response.status == 200
    assert image.read_bytes() == data


def test_clients_are_told_what_encrypts(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    with urllib.request.urlopen(urllib.request.Request(url, method="OPTIONS"), context=running.tls) as response:
        assert json.load(response)["tls"] in TLS


def test_local_socket_is_offered(running, image):
    url = running.add_ticket(url=f"file://{image}", size=4 * MiB)
    with urllib.request.urlopen(urllib.request.Request(url, method="OPTIONS"), context=running.tls) as response:
        assert json.load(response)["unix_socket"] == running.local_socket


def test_no_ticket_id_is_logged(running, image):
    secret = "f00dfeed-0000-4000-8000-c0ffeec0ffee"
    url = running.add_ticket(secret, url=f"file://{image}", size=4 * MiB)
    with urllib.request.urlopen(url, context=running.tls):
        pass
    running.control("PATCH", f"/tickets/{secret}", {"timeout": 60})
    running.control("DELETE", f"/tickets/{secret}")
    running.wait_log("REMOVE transfer")
    assert secret not in running.log()


def test_metrics(running):
    status, body = running.control("GET", "/metrics")
    assert status == 200
    assert b"imageio_connections_opened_total" in body


@pytest.mark.parametrize("path", ["/info", "/info/"])
def test_info_everywhere(running, path):
    with contextlib.ExitStack() as scope:
        for connection in (
            running.connect(),
            running.connect_unix(running.local_socket),
            running.connect_unix(running.control_socket),
        ):
            scope.enter_context(contextlib.closing(connection))
            connection.request("GET", path)
            assert json.load(connection.getresponse())["version"]


@pytest.mark.parametrize("path", ["/tickets/1", "/tickets", "/profile/", "/metrics", "/sessions"])
def test_remote_has_no_control(running, path):
    with contextlib.closing(running.connect()) as connection:
        connection.request("GET", path)
        assert connection.getresponse().status == 404


def test_control_has_no_images(running):
    assert running.control("GET", "/images/1")[0] == 404


def test_control_socket_mode(running):
    assert os.stat(running.control_socket).st_mode & 0o777 == 0o660


# --- How it ends ---


@pytest.fixture
def own(tmp_path):
    """A daemon that the test may end."""
    with daemon.running(tmp_path) as own:
        yield own


@contextlib.contextmanager
def download(own, tmp_path):
    """Begin to download more than fits into all buffers on the way; the rest comes when the test reads it."""
    path = tmp_path / "big"
    path.touch()
    os.truncate(path, 64 * MiB)
    url = own.add_ticket(url=f"file://{path}", size=64 * MiB)
    with urllib.request.urlopen(url, context=own.tls) as response:
        yield response


def test_drain(own, tmp_path):
    with contextlib.closing(own.connect()) as idle, download(own, tmp_path) as response:
        idle.request("GET", "/info")
        idle.getresponse().read()
        assert response.read(1)
        own.process.send_signal(signal.SIGTERM)
        # A client that asks nothing is let go at once; no new one comes in.
        assert idle.sock.recv(1) == b""
        with pytest.raises(OSError):
            own.connect().connect()
        # Who was being served gets all of it.
        assert len(response.read()) == 64 * MiB - 1
    assert own.process.wait(daemon.DEADLINE) == 0
    assert "Stopping signal=15" in own.log()
    assert own.log().rstrip().endswith("Stopped")


def test_drain_tells_what_it_waits_for(own, tmp_path):
    with download(own, tmp_path) as response:
        assert response.read(1)
        own.process.send_signal(signal.SIGTERM)
        own.wait_log(r"Waiting up to \d+ seconds for 1 transfer: \(ticket/.*; a second signal ends them at once")
        # One can look, and end the transfer.
        [info] = json.loads(own.control("GET", "/tickets")[1])
        assert info["active"]
        assert own.control("DELETE", "/tickets/" + response.url.rpartition("/")[2])[0] == 204
        assert own.process.wait(daemon.DEADLINE) == 0
    assert "Stopping at once" not in own.log()


def test_health_while_draining(tmp_path):
    """A load balancer sends no client here any more, Prometheus still gets its numbers."""
    text = "[metrics]\nenable = yes\nhost = localhost\nport = 0\n"
    with daemon.running(tmp_path, text) as own, download(own, tmp_path) as response:
        url = f"http://{own.addresses['metrics']}"
        with urllib.request.urlopen(f"{url}/health") as health:
            assert json.load(health) == {"status": "serving"}
        assert response.read(1)
        own.process.send_signal(signal.SIGTERM)
        own.wait_log("Waiting up to")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/health")
        with urllib.request.urlopen(f"{url}/metrics") as numbers:
            found = numbers.read().decode()
        expiry = re.search(r"^imageio_certificate_expiry_seconds (\d+)$", found, re.MULTILINE)
        assert int(expiry[1]) > time.time()
        assert own.stop() == 0


def test_upload_is_drained(own, image):
    url = own.add_ticket(url=f"file://{image}", size=4 * MiB)
    data = os.urandom(4 * MiB)
    with contextlib.closing(own.connect()) as connection:
        connection.putrequest("PUT", url.partition(str(own.port))[2])
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data[:MiB])
        wait_active(own, url)
        own.process.send_signal(signal.SIGTERM)
        own.wait_log("Stopping signal=15")
        connection.send(data[MiB:])
        assert connection.getresponse().status == 200
    assert own.process.wait(daemon.DEADLINE) == 0
    assert image.read_bytes() == data


def wait_active(own, url):
    """Wait until something runs on the ticket."""
    path = "/tickets/" + url.rpartition("/")[2]
    wait_until(lambda: json.loads(own.control("GET", path)[1])["active"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_cuts(own, tmp_path, number):
    with download(own, tmp_path) as response:
        assert response.read(1)
        own.process.send_signal(signal.SIGTERM)
        own.wait_log("Stopping signal=15")
        assert own.stop(number) == 0
        with pytest.raises((http.client.IncompleteRead, OSError)):
            response.read()
    assert "Stopping at once" in own.log()


def test_drain_timeout(tmp_path):
    with daemon.running(tmp_path, "[daemon]\ndrain_timeout = 0.1\n") as own, download(own, tmp_path) as response:
        assert response.read(1)
        assert own.stop() == 0
        # The server and the store cut at the same moment: who comes first, tells.
        assert re.search("Cutting off connection=|CUT transfer=.*the service stops", own.log())


def test_sockets_are_removed(own):
    own.stop()
    assert not os.path.exists(own.control_socket)


def test_signal_while_starting(tmp_path):
    """A signal that comes before the daemon waits for one is not lost."""
    daemon.write_config(tmp_path)
    log = tmp_path / "daemon.log"
    with daemon.start(tmp_path) as process:
        wait_until(lambda: log.exists() and "Starting" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(daemon.DEADLINE) == 0
    assert "Stopped" in log.read_text()


def test_killed_daemon_does_not_block_the_next(tmp_path):
    with ports.reserved() as port:
        text = f"[remote]\nport = {port}\n[local]\nsocket = {tmp_path}/local.sock\n"
        for _ in range(2):
            with daemon.running(tmp_path, text) as own:
                assert own.port == port
                assert own.control("GET", "/info")[0] == 200
                with contextlib.closing(own.connect()) as connection:
                    connection.request("GET", "/info")
                    connection.getresponse().read()
                    own.stop(signal.SIGKILL)
                assert os.path.exists(own.control_socket)


# --- Reload ---


def served_certificate(own):
    with socket.create_connection(("localhost", own.port), timeout=daemon.DEADLINE) as raw:  # noqa: SIM117
        with own.tls.wrap_socket(raw, server_hostname="localhost") as client:
            return client.getpeercert(binary_form=True)


def own_copy(certificate, folder):
    """Return the certificate in files of its own, which the test may replace."""
    copy = certificates.Certificate(str(folder / "cert.pem"), str(folder / "key.pem"), certificate.ca_file)
    replace(copy, certificate)
    return copy


def replace(old, new):
    for target, source in ((old.cert_file, new.cert_file), (old.key_file, new.key_file)):
        with open(source, "rb") as file, open(target, "wb") as copy:
            copy.write(file.read())


def test_reload(tmp_path):
    first, second = certificates.certificate(), certificates.certificate("second")
    files = own_copy(first, tmp_path)
    with daemon.running(tmp_path, tls=files) as own, download(own, tmp_path) as response:
        before = served_certificate(own)
        assert response.read(1)
        replace(files, second)
        daemon.write_config(tmp_path, "[logger_root]\nlevel = DEBUG\n", tls=files)
        own.process.send_signal(signal.SIGHUP)
        own.wait_log("Reloaded")
        assert served_certificate(own) != before
        own.control("GET", "/tickets/" + response.url.rpartition("/")[2])
        assert re.search(r"DEBUG .* GET transfer=", own.log())
        assert len(response.read()) == 64 * MiB - 1


def test_failed_reload_changes_nothing(tmp_path):
    files = own_copy(certificates.certificate(), tmp_path)
    with daemon.running(tmp_path, tls=files) as own:
        before = served_certificate(own)
        os.unlink(files.key_file)
        daemon.write_config(tmp_path, "[logger_root]\nlevel = chatty\n", tls=files)
        own.process.send_signal(signal.SIGHUP)
        own.wait_log("Cannot reload the certificate")
        assert "Cannot reload the configuration, keeping the old one: [logger_root] level = 'chatty'" in own.log()
        daemon.write_config(tmp_path, "[loggers]\nkeys = root, none\n", tls=files)
        own.process.send_signal(signal.SIGHUP)
        own.wait_log("Cannot reload the certificate", 2)
        assert "Cannot reload the configuration, keeping the old one: [loggers] keys = 'none'" in own.log()
        assert "Cannot reload the certificate, keeping the old one: [tls] key_file" in own.log()
        assert "Reloaded" not in own.log()
        assert served_certificate(own) == before
