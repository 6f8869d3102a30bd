"""Who sees what, and who reaches whom, with the proxy between client and host; and its role on the engine host."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess

import pytest

pytest.importorskip("cryptography")

from fakes.chaos import ChaosProxy
from fakes.waiting import DEADLINE
from real import certificates, daemon, network
from real.proxy import SIZE, Image, ask, open_session


def test_nothing_passes_in_the_clear(proxy, host, tmp_path):
    """Neither between client and proxy, nor between proxy and host."""
    data = b"a secret of this disk " * 1000
    image = Image(host, tmp_path, data)
    with (
        ChaosProxy(("localhost", host.port), keep=True) as behind,
        ChaosProxy(("localhost", proxy.port), keep=True) as before,
    ):
        url = f"https://localhost:{behind.port}/images/{image.id}"
        path = "/images/" + proxy.add_ticket(size=image.size, url=url).rpartition("/")[2]
        connection = http.client.HTTPSConnection("localhost", before.port, timeout=DEADLINE, context=proxy.tls)
        with contextlib.closing(connection):
            connection.request("GET", path)
            assert connection.getresponse().read() == data
            connection.request("PUT", path, data)
            assert connection.getresponse().status == 200
    for seen in (before.seen, behind.seen):
        assert len(seen) > 2 * len(data)
        assert b"a secret" not in seen
        assert b"/images/" not in seen


@pytest.mark.storage
def test_client_that_cannot_reach_the_host(host, tmp_path):
    """That is what the proxy is for."""
    if not network.available():
        pytest.skip("needs root, ip and network namespaces")
    image = Image(host, tmp_path)
    folder = tmp_path / "proxy"
    folder.mkdir()
    with network.apart() as net:
        text = f"[remote]\nhost = {net.address}\n[backend_http]\nca_file = {certificates.authority().cert_file}\n"
        with daemon.running(folder, text) as proxy:

            def curl(port, path):
                where = ["--connect-to", f"localhost:{port}:{net.address}:{port}", "--cacert", proxy.ca_file]
                command = [
                    *net.command,
                    "curl",
                    "-sS",
                    "--max-time",
                    str(DEADLINE),
                    *where,
                    f"https://localhost:{port}{path}",
                ]
                return subprocess.run(command, capture_output=True, check=False)

            # 7: no server there could be reached.
            assert curl(host.port, f"/images/{image.id}").returncode == 7
            assert curl(proxy.port, image.offer(proxy)).stdout == image.content


@pytest.mark.parametrize("address", ["[::1]", "::1", "0:0:0:0:0:0:0:1"])
def test_host_that_is_known_by_its_ipv6_address(proxy, tmp_path, address):
    """An engine writes it without brackets."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6: {error}")
    folder = tmp_path / "host"
    folder.mkdir()
    with daemon.running(folder, "[local]\nenable = false\n[remote]\nhost = ::1\n") as host:
        image = Image(host, tmp_path)
        url = image.url.replace("localhost", address)
        path = "/images/" + proxy.add_ticket(size=image.size, url=url).rpartition("/")[2]
        assert ask(proxy, "GET", path).body == image.content
        token = image.token(**{"imaged-uri": url.rpartition("/images/")[0]})
        assert ask(proxy, "GET", f"/images/{image.id}", open_session(proxy, token)).body == image.content


def test_engine_role(tmp_path, image):
    """The drop-in for the engine host, with files and ports of this test: TLS for clients, tickets over TCP."""
    made = certificates.certificate()
    text = (daemon.ROOT / "conf" / "50-engine.conf").read_text()
    for key, value in {"key_file": made.key_file, "cert_file": made.cert_file, "ca_file": made.ca_file}.items():
        text, count = re.subn(f"(?m)^{key} = /etc/pki/.*$", f"{key} = {value}", text)
        assert count
    text, count = re.subn("(?m)^port = 5432[34]$", "port = 0", text)
    assert count == 2
    with daemon.running(tmp_path, text) as proxy:
        assert set(proxy.addresses) == {"remote", "control"}
        port = int(proxy.addresses["control"].rpartition(":")[2])
        document = json.dumps(
            {"uuid": image.id, "size": SIZE, "ops": ["read"], "timeout": 300, "url": image.url}
        ).encode()
        # As the engine does it: no Host, nothing but the length.
        with socket.create_connection(("localhost", port), DEADLINE) as control:
            head = f"PUT /tickets/{image.id} HTTP/1.1\r\nContent-Length: {len(document)}\r\n\r\n"
            control.sendall(head.encode() + document)
            assert control.recv(1000).startswith(b"HTTP/1.1 200")
        assert ask(proxy, "GET", f"/images/{image.id}").body == image.content
