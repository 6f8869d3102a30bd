"""The files that decide who is trusted are found in the configuration, and their faults named by section."""

from dataclasses import replace

import pytest
from real import certificates

from ovirt_imageio import errors
from ovirt_imageio.config import Config
from ovirt_imageio.net import kernel_tls
from ovirt_imageio.service import trust


def test_files():
    config = Config()
    assert trust.files(replace(config, tls=replace(config.tls, enable=False))) == []
    tls = replace(config.tls, cert_file="/cert", key_file="/key", ca_file="/ca")
    secure = [("tls", "cert_file", "/cert"), ("tls", "key_file", "/key")]
    assert trust.files(replace(config, tls=tls)) == [*secure, ("tls", "ca_file", "/ca")]
    proxy = replace(
        config,
        tls=tls,
        backend_http=replace(config.backend_http, ca_file="/hosts"),
        sessions=replace(config.sessions, enable=True, engine_cert_file="/engine", engine_ca_cert_file="/authority"),
    )
    assert trust.files(proxy) == [
        *secure,
        ("backend_http", "ca_file", "/hosts"),
        ("sessions", "engine_cert_file", "/engine"),
        ("sessions", "engine_ca_cert_file", "/authority"),
    ]


@pytest.mark.parametrize("section", ["tls", "backend_http"])
def test_check_authorities(section):
    config = Config()
    good = replace(getattr(config, section), ca_file=certificates.certificate().ca_file)
    trust.check_authorities(replace(config, **{section: good}))
    bad = replace(good, ca_file="/nowhere")
    with pytest.raises(errors.ConfigError, match=rf"^\[{section}\] ca_file = '/nowhere': .*no such file"):
        trust.check_authorities(replace(config, **{section: bad}))


def test_no_tls():
    config = Config()
    assert trust.server_context(replace(config, tls=replace(config.tls, enable=False))) is None


def test_kernel_that_may_not_encrypt():
    config = Config()
    off = replace(config, tls=replace(config.tls, kernel="off"))
    assert trust.describe_kernel(off) == "TLS is not in the kernel: [tls] kernel is off"


def test_kernel_that_may_encrypt():
    """Whether it can is told by the system of the test."""
    reason = kernel_tls.why_not()
    assert trust.describe_kernel(Config()) == (
        f"TLS is not in the kernel: {reason}" if reason else "TLS is in the kernel"
    )


@pytest.mark.parametrize("kernel, asks", [("auto", 1), ("off", 0)])
def test_system_is_asked_once(monkeypatch, kernel, asks):
    asked = []
    monkeypatch.setattr(kernel_tls, "allow", asked.append)
    made = certificates.certificate()
    config = Config()
    tls = replace(config.tls, cert_file=made.cert_file, key_file=made.key_file, kernel=kernel)
    context = trust.server_context(replace(config, tls=tls))
    assert context() is context()
    assert len(asked) == asks
