"""The certificates of the engine, as they come and go on disk."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("cryptography")

from real import tokens

from ovirt_imageio import errors
from ovirt_imageio.sessions.engine import Engine

AUTHORITY = tokens.make_authority("CA")
ENGINE = tokens.issue("engine", tokens.rsa_key("engine"), AUTHORITY)
RENEWED = tokens.issue("engine", tokens.rsa_key("other"), AUTHORITY)


@pytest.fixture
def files(tmp_path):
    cert, ca = tmp_path / "engine.cer", tmp_path / "ca.pem"
    cert.write_bytes(ENGINE.pem)
    ca.write_bytes(AUTHORITY.pem)
    return cert, ca


def replace(path, data):
    """As tools that care do it."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.rename(path)


def test_verify(files):
    engine = Engine(*map(str, files))
    assert engine.verify(tokens.make_token(ENGINE), time.time()).ticket_id == tokens.TICKET_ID
    with pytest.raises(errors.NotAuthenticated):
        engine.verify(tokens.make_token(RENEWED), time.time())


def test_options(files):
    now = time.time()
    late = tokens.make_token(ENGINE, now - 305)
    assert Engine(*map(str, files), skew=10).verify(late, now)
    with pytest.raises(errors.NotAuthenticated):
        Engine(*map(str, files)).verify(late, now)


def test_renewed_certificate(files):
    engine = Engine(*map(str, files))
    engine.verify(tokens.make_token(ENGINE), time.time())
    replace(files[0], RENEWED.pem)
    engine.verify(tokens.make_token(RENEWED), time.time())
    with pytest.raises(errors.NotAuthenticated):
        engine.verify(tokens.make_token(ENGINE), time.time())


@pytest.mark.parametrize("index,key", [(0, "engine_cert_file"), (1, "engine_ca_cert_file")])
def test_missing_at_start(files, index, key):
    files[index].unlink()
    with pytest.raises(errors.ConfigError, match=f"{key} = .*No such file") as e:
        Engine(*map(str, files))
    assert str(files[index]) in str(e.value)


@pytest.mark.parametrize("index", [0, 1])
def test_lost_later(files, index, caplog):
    engine = Engine(*map(str, files))
    data = files[index].read_bytes()
    for damage in (files[index].unlink, lambda: replace(files[index], b"damaged")):
        damage()
        with pytest.raises(errors.NotAuthenticated, match="cannot verify"):
            engine.verify(tokens.make_token(ENGINE), time.time())
        assert "Cannot verify tokens" in caplog.text
    replace(files[index], data)
    engine.verify(tokens.make_token(ENGINE), time.time())
