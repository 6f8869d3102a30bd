"""Making signed tickets: what is in them, and what goes wrong with keys."""

from __future__ import annotations

import pytest
from fakes.signing import key_pair

from ovirt_imageio.admin import cli
from ovirt_imageio.admin.document import DiskChoice, Mistake
from ovirt_imageio.admin.signing import Wish, presigned, sign
from ovirt_imageio.net import jws
from ovirt_imageio.net.jws import Key
from ovirt_imageio.sessions.signed import Verifier

DISK = DiskChoice(url="nbd:unix:/run/sock", size=1000, read_only=True)


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(key_pair()[0])
    return str(path)


def verifier():
    return Verifier(lambda kid: Key(key_pair()[1]), "imageio", lambda url: True)


def test_a_daemon_accepts_it(key_file):
    jti, token = sign(Wish(DISK, "imageio", 60), key_file, now=1000.9)
    claims = verifier().verify(token)
    assert (claims.jti, claims.expires) == (jti, 1060)
    assert claims.document == {"url": DISK.url, "size": 1000, "ops": ["read"], "timeout": 3600, "sparse": True}


def test_names(key_file):
    jti, token = sign(Wish(DISK, "imageio", 60, "backup-1"), key_file, "key-7")
    assert jti == verifier().verify(token).jti == "backup-1"
    assert jws.key_id(token) == "key-7"


def test_a_url():
    assert presigned("https://host:54322/", "a b", "x.y.z") == "https://host:54322/images/a%20b?ticket=x.y.z"


@pytest.mark.parametrize(
    "content, words", [(None, "No such file"), (b"x", "Cannot use the key"), (key_pair("p384")[0], "Ed25519, P-256")]
)
def test_keys_that_cannot_be_used(tmp_path, content, words):
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Mistake, match=words):
        sign(Wish(DISK, "imageio", 60), str(path))


def test_the_command(key_file, tmp_path, capsys):
    """It needs no service, and the file only for its size."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1000))
    command = ["sign-ticket", "--key", key_file, "--audience", "imageio", "--file", str(disk), "--lifetime", "10m"]
    assert cli.main(["-c", str(tmp_path), *command, "--server", "https://host:54322", "--jti", "x"]) == 0
    url = capsys.readouterr().out.strip()
    base, _, token = url.partition("?ticket=")
    assert base == "https://host:54322/images/x"
    claims = verifier().verify(token)
    assert claims.document["url"] == f"file://{disk}"
    assert (claims.document["size"], claims.document["filename"]) == (1000, "disk.raw")
    assert cli.main(["-c", str(tmp_path), *command]) == 0
    assert verifier().verify(capsys.readouterr().out.strip()).document["ops"] == ["write"]


def test_a_mistake(tmp_path, capsys):
    command = ["sign-ticket", "--key", str(tmp_path / "no"), "--audience", "x", "--url", "nbd:x:1", "--size", "1m"]
    assert cli.main(["-c", str(tmp_path), *command]) == 1
    assert "Cannot read the key" in capsys.readouterr().err
