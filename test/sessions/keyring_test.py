"""Keys in files: found by their id, read again when they change, and not trusted once they are gone."""

from __future__ import annotations

import os

import pytest
from fakes.signing import key_pair

from ovirt_imageio import errors
from ovirt_imageio.sessions.keyring import KeyRing

ONE, OTHER = (key_pair(number=number)[1] for number in (0, 1))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "one.pem").write_bytes(ONE)
    (tmp_path / "README").write_text("not a key")
    return tmp_path


def test_one_key_for_all(folder):
    ring = KeyRing(str(folder / "one.pem"))
    assert ring.find(None) is ring.find("whatever")


def test_a_key_for_each_id(folder):
    ring = KeyRing(keys_dir=str(folder))
    assert ring.find("one") is ring.find("one")
    (folder / "two.pem").write_bytes(OTHER)
    assert ring.find("two") is not ring.find("one")


@pytest.mark.parametrize("kid", ["other", "../one", "one.pem", "", ".", "one\0", "a" * 200, "/etc/passwd", "ö"])
def test_unknown_ids(folder, kid):
    (folder.parent / "one.pem").write_bytes(ONE)
    with pytest.raises(errors.NotAuthenticated, match="its key is not known here"):
        KeyRing(keys_dir=str(folder)).find(kid)


def test_a_ticket_without_an_id(folder):
    with pytest.raises(errors.NotAuthenticated, match="which key signed it"):
        KeyRing(keys_dir=str(folder)).find(None)


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_key_that_is_exchanged(folder, is_folder):
    ring = KeyRing(keys_dir=str(folder)) if is_folder else KeyRing(str(folder / "one.pem"))
    old = ring.find("one")
    (folder / "new").write_bytes(OTHER)
    os.replace(folder / "new", folder / "one.pem")
    assert ring.find("one") is not old


def test_a_key_that_vanishes(folder, caplog):
    ring, single = KeyRing(keys_dir=str(folder)), KeyRing(str(folder / "one.pem"))
    assert ring.find("one")
    assert single.find(None)
    (folder / "one.pem").unlink()
    with pytest.raises(errors.NotAuthenticated, match="not known here"):
        ring.find("one")
    with pytest.raises(errors.NotAuthenticated, match="the log tells why"):
        single.find(None)
    assert "one.pem: No such file" in caplog.text


def test_a_key_that_is_damaged(folder, caplog):
    ring = KeyRing(keys_dir=str(folder))
    (folder / "one.pem").write_text("damaged")
    with pytest.raises(errors.NotAuthenticated, match="the log tells why"):
        ring.find("one")
    assert "Cannot use" in caplog.text


@pytest.mark.parametrize(
    "arguments, key",
    [
        ({}, "key_file"),
        ({"key_file": "one.pem", "keys_dir": "."}, "key_file"),
        ({"key_file": "missing.pem"}, "key_file"),
        ({"key_file": "README"}, "key_file"),
        ({"keys_dir": "missing"}, "keys_dir"),
        ({"keys_dir": "empty"}, "keys_dir"),
    ],
)
def test_what_cannot_be_configured(folder, arguments, key):
    (folder / "empty").mkdir()
    with pytest.raises(errors.ConfigError) as caught:
        KeyRing(**{name: str(folder / value) for name, value in arguments.items()})
    assert caught.value.section == "signed_tickets"
    assert caught.value.name == key
