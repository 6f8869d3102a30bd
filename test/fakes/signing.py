"""Pairs of keys that sign tickets, made once for all tests."""

from __future__ import annotations

import functools

import pytest

__all__ = ["KEYS", "key_pair"]

# Those that are good.
KEYS = ("ed25519", "p256", "rsa")


@functools.cache
def key_pair(kind: str = "ed25519", number: int = 0) -> tuple[bytes, bytes]:
    """Return a private key and its public key, PEM; another pair for another number."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    makers = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),
    }
    key = makers[kind]()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public
