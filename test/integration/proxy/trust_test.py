"""Which engine and which hosts the proxy believes."""

from __future__ import annotations

import pytest

pytest.importorskip("cryptography")

from fakes.waiting import DEADLINE
from real import certificates, daemon, tokens
from real.proxy import AUTHORITY, ENGINE, FOREIGN, PROXY, Image, ask, run_host, run_proxy


def test_engine_of_another_authority(image, tmp_path):
    stranger = tokens.issue("engine", tokens.rsa_key("engine"), FOREIGN)
    with run_proxy(tmp_path / "proxy", engine=stranger) as proxy:
        assert ask(proxy, "POST", "/sessions", {"Authorization": image.token(stranger)}).status == 401


def test_host_of_another_authority(tmp_path, proxy):
    certificate = certificates.self_signed("foreign")
    with run_host(tmp_path / "host", tls=certificate) as host:
        image = Image(host, tmp_path)
        assert ask(proxy, "GET", image.offer(proxy)).status == 502
        assert ask(proxy, "POST", "/sessions", {"Authorization": image.token()}).status == 502
        # It was not told what for.
        assert "OPTIONS" not in host.log()


def test_host_with_another_name(tmp_path, proxy, image):
    certificate = certificates.certificate("misnamed", "DNS:elsewhere.example")
    with run_host(tmp_path / "host", tls=certificate) as host:
        image = Image(host, tmp_path)
        assert ask(proxy, "GET", image.offer(proxy)).status == 502
        assert "OPTIONS" not in host.log()


def test_sessions_only_when_configured(host):
    for method, path in (
        ("POST", "/sessions"),
        ("POST", "/sessions/"),
        ("DELETE", "/sessions/x"),
        ("OPTIONS", "/sessions"),
    ):
        assert ask(host, method, path).status == 404


@pytest.mark.parametrize("missing", ["engine.cer", "ca.pem"])
def test_certificates_that_are_missing(tmp_path, missing):
    (tmp_path / "engine.cer").write_bytes(ENGINE.pem)
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    (tmp_path / missing).unlink()
    text = PROXY.format(
        ca_file=certificates.authority().cert_file,
        connect_timeout=10,
        read_timeout=10,
        engine=tmp_path / "engine.cer",
        authority=tmp_path / "ca.pem",
    )
    daemon.write_config(tmp_path, text)
    with daemon.start(tmp_path, stderr=-1) as process:
        error = process.communicate(timeout=DEADLINE)[1].decode()
    assert process.returncode != 0
    assert missing in error
