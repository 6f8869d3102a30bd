"""Signed texts: what is accepted, and each way to forge one. Tokens are also made by hand, byte by byte."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json

import pytest
from fakes.signing import KEYS, key_pair
from hypothesis import given
from hypothesis import strategies as st

from ovirt_imageio import errors
from ovirt_imageio.net import jws
from ovirt_imageio.net.jws import Key, PrivateKey

PAYLOAD = {"jti": "x", "exp": 5}


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def assemble(header, payload, signature: bytes = b"") -> str:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    return ".".join(encode(part) for part in [*parts, signature])


@pytest.fixture(params=KEYS)
def pair(request):
    private, public = key_pair(request.param)
    return PrivateKey(private), Key(public)


def refuses(key: Key, token: str, words: str) -> None:
    with pytest.raises(errors.NotAuthenticated) as caught:
        key.verify(token)
    assert words in str(caught.value)
    assert token not in str(caught.value)


def test_every_field_of_a_header_that_may_be_there():
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from jwt.api_jws import PyJWS

    private, public = key_pair("ed25519")
    header = {"kid": "key-1", "typ": "JWT", "cty": "json"}
    token = PyJWS().encode(b"{}", load_pem_private_key(private, None), algorithm="EdDSA", headers=header)
    assert Key(public).verify(token) == {}


def test_key_of_a_certificate():
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    private, _ = key_pair("p256")
    key = load_pem_private_key(private, None)
    name = x509.Name([])
    day = datetime.datetime(2026, 1, 1)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day).sign(key, hashes.SHA256())
    assert Key(certificate.public_bytes(Encoding.PEM)).verify(PrivateKey(private).sign(PAYLOAD)) == PAYLOAD


def test_signed_and_verified(pair):
    private, public = pair
    token = private.sign(PAYLOAD, "key-1")
    assert public.verify(token) == PAYLOAD
    assert jws.key_id(token) == "key-1"
    assert jws.key_id(private.sign(PAYLOAD)) is None


def test_a_token_of_rfc_8037():
    """Appendix A.4 has a key and a signature by it; the payload is no JSON."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    pem = Ed25519PublicKey.from_public_bytes(raw).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    token = (
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    refuses(Key(pem), token, "payload is not JSON")
    refuses(Key(pem), token[:-4] + "AAAA", "signature is wrong")


@given(st.data())
def test_any_change_is_refused(data):
    private, public = key_pair("ed25519")
    token = PrivateKey(private).sign(PAYLOAD)
    index = data.draw(st.integers(0, len(token) - 1))
    char = data.draw(st.sampled_from("ABCxyz019-_.{ "))
    changed = token[:index] + char + token[index + 1 :]
    # The last character of a part may have bits that mean nothing.
    same = [part.rstrip("=") for part in changed.split(".")] == token.split(".")
    if same or decoded(changed) == decoded(token):
        return
    with pytest.raises(errors.NotAuthenticated):
        Key(public).verify(changed)


def decoded(token: str) -> object:
    try:
        return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]
    except ValueError:
        return token


def test_no_signature(pair):
    for algorithm in ("none", "None", "", None):
        refuses(pair[1], assemble({"alg": algorithm}, PAYLOAD), "algorithm is not that of the key")


def test_the_public_key_as_a_shared_secret():
    _, public = key_pair("rsa")
    head = {"alg": "HS256", "typ": "JWT"}
    signed = assemble(head, PAYLOAD).rpartition(".")[0]
    signature = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    refuses(Key(public), f"{signed}.{encode(signature)}", "algorithm is not that of the key, RS256")


def test_the_key_of_somebody_else(pair):
    _, public = pair
    other, _ = key_pair({"EdDSA": "ed25519", "ES256": "p256", "RS256": "rsa"}[public.algorithm], number=1)
    refuses(public, PrivateKey(other).sign(PAYLOAD), "signature is wrong")


@pytest.mark.parametrize(
    "field", [{"crit": ["exp"]}, {"b64": False}, {"jwk": {}}, {"jku": "https://evil"}, {"x5u": "y"}]
)
def test_headers_that_change_the_meaning(field):
    _, public = key_pair("ed25519")
    refuses(Key(public), assemble({"alg": "EdDSA", **field}, PAYLOAD, bytes(64)), "fields that are not known")


@pytest.mark.parametrize(
    "token, words",
    [
        ("", "three short texts"),
        ("a.b", "three short texts"),
        ("a.b.c.d", "three short texts"),
        ("é.b.c", "three short texts"),
        ("x" * (16 * 1024 - 1) + "..", "three short texts"),
        # As long as may be.
        ("x" * (16 * 1024 - 2) + "..", "header is not JSON"),
        ("abcde.b.c", "header is not base64"),
        ("!.b.c", "header is not"),
        (assemble(b"[]", {}), "header is not a JSON object"),
        (assemble(b"{", {}), "header is not JSON"),
        (assemble(b'{"alg": "none", "alg": "EdDSA"}', {}), "header is not JSON"),
        (assemble(b"[" * 5000, {}), "header is not JSON"),
        (assemble({"alg": "EdDSA", "kid": 5}, {}), "kid is not a string"),
    ],
)
def test_what_is_no_token(token, words):
    with pytest.raises(errors.NotAuthenticated, match=words):
        jws.key_id(token)


def test_payloads_that_are_no_object():
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from jwt.api_jws import PyJWS

    private, public = key_pair("ed25519")
    key = load_pem_private_key(private, None)
    # Python 3.13 understands deeper ones than others do.
    deep, huge = b'{"a":' + b"[" * 11_000, b'{"exp": ' + b"9" * 5000 + b"}"
    for payload in (b"[]", b"x", b'{"exp": 1, "exp": 2}', b"", deep, huge):
        refuses(Key(public), PyJWS().encode(payload, key, algorithm="EdDSA"), "payload is not")


# Of prime239v1, a curve that the library does not know.
STRANGE = b"""-----BEGIN PUBLIC KEY-----
MFUwEwYHKoZIzj0CAQYIKoZIzj0DAQQDPgAEMecl2Pqds99ia+XnXDooptjMLEFTd2cb0HF87ZyPINrujHu9Jg3FaWDgfzd+6jhYGG6uDgnVuB6IBI+E
-----END PUBLIC KEY-----
"""


def test_keys_that_cannot_be_used():
    for pem in (b"", b"x", key_pair("ed25519")[0], STRANGE):
        with pytest.raises(errors.InvalidValue, match="a public key or a certificate, PEM"):
            Key(pem)
    for pem in (b"", key_pair("ed25519")[1]):
        with pytest.raises(errors.InvalidValue):
            PrivateKey(pem)


@pytest.mark.parametrize("kind", ["rsa-1024", "p384"])
def test_weak_and_other_keys(kind):
    private, public = key_pair(kind)
    with pytest.raises(errors.InvalidValue, match="Ed25519, P-256, or RSA with 2048 bits"):
        Key(public)
    with pytest.raises(errors.InvalidValue):
        PrivateKey(private)


def test_without_the_libraries(monkeypatch):
    import sys

    jws.check_support("signed_tickets")
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(errors.ConfigError, match="pyjwt"):
        jws.check_support("signed_tickets")
