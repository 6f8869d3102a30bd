"""Signed texts: a JSON object in a compact JWS (RFC 7515), signed by a private key, checked with the public one.

    BASE64(header) . BASE64(payload) . BASE64(signature)

The key decides the algorithm: Ed25519 means EdDSA, P-256 ES256, RSA RS256. What a header says beside that is an attack:
no signature, or the public key used as a shared secret.

Pure: keys come as bytes. Knows nothing of what a payload means. PyJWT and cryptography are imported by the first key
only, so that a daemon without signed tickets need not have them.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, Optional

from ovirt_imageio import errors

__all__ = ["Key", "PrivateKey", "check_support", "key_id", "refuse"]

# A ticket has some 500 bytes; the line of a request has room for this.
MAX_TOKEN = 16 * 1024

# A shorter RSA key can be broken, or soon.
MIN_RSA_BITS = 2048

# What a header of ours may hold: another field may change what the signature covers ("crit", "b64").
HEADER = frozenset({"alg", "kid", "typ", "cty"})


class Key:
    """A public key, PEM: a key alone, or a certificate, of which only the key counts.

    Raises errors.InvalidValue if it cannot be used.

    Threads: any number at once.
    """

    def __init__(self, pem: bytes) -> None:
        self._key = load_public(pem)
        self.algorithm = algorithm_of(self._key)

    def verify(self, token: str) -> dict[str, Any]:
        """Return the payload; raises errors.NotAuthenticated unless this key signed it."""
        import jwt
        from jwt.api_jws import PyJWS

        header = header_of(token)
        if header.get("alg") != self.algorithm:
            refuse(f"its algorithm is not that of the key, {self.algorithm}")
        if not header.keys() <= HEADER:
            refuse("its header has fields that are not known")
        try:
            payload = PyJWS(algorithms=[self.algorithm]).decode(token, key=self._key, algorithms=[self.algorithm])
        except jwt.exceptions.PyJWTError:
            refuse("its signature is wrong")
        return parsed(payload, "payload")


class PrivateKey:
    """A private key, PEM, without a password. Raises errors.InvalidValue if it cannot be used."""

    def __init__(self, pem: bytes) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            self._key: Any = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as e:
            raise errors.InvalidValue("private key", "(not shown)", "PEM, without a password") from e
        self.algorithm = algorithm_of(self._key.public_key())

    def sign(self, payload: dict[str, Any], kid: Optional[str] = None) -> str:
        """Return the payload, signed. kid tells which one of several keys that was."""
        from jwt.api_jws import PyJWS

        data = json.dumps(payload, separators=(",", ":")).encode()
        headers = {"typ": "JWT"} if kid is None else {"typ": "JWT", "kid": kid}
        return PyJWS().encode(data, self._key, algorithm=self.algorithm, headers=headers)


def check_support(section: str) -> None:
    """Raise errors.ConfigError, with advice, if the libraries for signatures are not there."""
    try:
        import cryptography  # noqa: F401
        import jwt  # noqa: F401
    except ImportError as e:
        expected = "the Python packages 'pyjwt' and 'cryptography', which are not installed"
        raise errors.ConfigError("enable", "true", expected, section=section) from e


def key_id(token: str) -> Optional[str]:
    """Return which key is said to have signed; nothing is verified yet. Raises errors.NotAuthenticated."""
    kid = header_of(token).get("kid")
    if kid is not None and type(kid) is not str:
        refuse("its kid is not a string")
    return kid


def header_of(token: str) -> dict[str, Any]:
    """Return the header. Raises errors.NotAuthenticated."""
    import jwt
    from jwt.utils import base64url_decode

    if len(token) > MAX_TOKEN or not token.isascii() or token.count(".") != 2:
        refuse("it is not three short texts with dots between them")
    try:
        data = base64url_decode(token.partition(".")[0])
    except (ValueError, jwt.exceptions.PyJWTError):
        refuse("its header is not base64")
    return parsed(data, "header")


def parsed(data: bytes, part: str) -> dict[str, Any]:
    """Return a JSON object. Two members of one name are not one: another reader may have checked the other one."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("two members have the same name")
        return found

    try:
        value = json.loads(data, object_pairs_hook=members)
    except (ValueError, RecursionError):
        refuse(f"its {part} is not JSON")
    if not isinstance(value, dict):
        refuse(f"its {part} is not a JSON object")
    return value


def load_public(pem: bytes) -> Any:
    """Return the public key in PEM."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        if b"-----BEGIN CERTIFICATE-----" in pem:
            return x509.load_pem_x509_certificate(pem).public_key()
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as e:
        raise errors.InvalidValue("public key", "(not shown)", "a public key or a certificate, PEM") from e


def algorithm_of(key: Any) -> str:
    """Return the only algorithm that a public key is good for. Raises errors.InvalidValue."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return "RS256"
    expected = f"Ed25519, P-256, or RSA with {MIN_RSA_BITS} bits or more"
    raise errors.InvalidValue("kind of key", type(key).__name__.strip("_"), expected)


def refuse(reason: str) -> NoReturn:
    """Raise errors.NotAuthenticated for a token."""
    raise errors.NotAuthenticated(f"the signed ticket is not good: {reason}")
