"""Keys, certificates and signed tokens made for a test: what an engine and its certificate authority would make.

Needs the `cryptography` package; ask for it with pytest.importorskip before importing this.
"""

from __future__ import annotations

import base64
import datetime
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

TICKET_ID = "6cf2f8a7-3e5b-4ac1-9f1b-3a8ab4b6a0d1"
SIGNED = ("salt", "validFrom", "validTo", "data")
DAY = 24 * 60 * 60


@dataclass(frozen=True)
class Identity:
    """A key and the certificate that goes with it."""

    key: Any
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def save(self, directory: Path, name: str) -> tuple[str, str]:
        """Write NAME.key and NAME.cer; return their paths."""
        key, certificate = directory / f"{name}.key", directory / f"{name}.cer"
        key.write_bytes(self.key_pem)
        certificate.write_bytes(self.pem)
        return str(key), str(certificate)


@functools.cache
def rsa_key(name: str) -> Any:
    """Return a key; the same for the same name, because making one takes long."""
    return rsa.generate_private_key(65537, 2048)


def make_authority(name: str) -> Identity:
    """Return an authority with an elliptic curve key, which is made in no time."""
    return issue(name, ec.generate_private_key(ec.SECP256R1()), is_authority=True)


def issue(
    name: str,
    key: Any,
    issuer: Optional[Identity] = None,
    *,
    is_authority: bool = False,
    hosts: Sequence[str] = (),
    start: float = 0,
    end: float = 0,
) -> Identity:
    """Return a certificate for key, signed by issuer, or by itself; start and end are seconds from now."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(seconds=start or -DAY))
        .not_valid_after(now + datetime.timedelta(seconds=end or DAY))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative(host) for host in hosts]), False)
    return Identity(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


def alternative(host: str) -> Any:
    """Return the name of a host as a certificate tells it."""
    import ipaddress

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def date(when: float) -> str:
    """Return a time as the envelope of a token tells it."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(when))


def make_payload(now: float, base_url: str = "https://host.example:54322", **changes: Any) -> dict[str, Any]:
    """Return the payload of a token for TICKET_ID; a change to None removes a key."""
    payload = {
        "nbf": int(now),
        "iat": int(now),
        "exp": int(now) + 300,
        "imaged-uri": base_url,
        "transfer-ticket": TICKET_ID,
        "transfer-id": "a1f4ad5e-49f1-4d0c-9d9c-5e5ef6d2bd1e",
    }
    payload.update(changes)
    return {key: value for key, value in payload.items() if value is not None}


def make_fields(now: float, data: Union[str, dict[str, Any]], lifetime: int = 300) -> dict[str, Any]:
    """Return the fields of an envelope that were not signed yet."""
    if not isinstance(data, str):
        # As the engine writes it.
        data = json.dumps(data, indent=2, separators=(",", " : "))
    return {
        "salt": base64.b64encode(b"12345678").decode(),
        "validFrom": date(now),
        "validTo": date(now + lifetime),
        "data": data,
    }


def signed_bytes(fields: dict[str, Any], names: Sequence[str]) -> bytes:
    """Return what is signed: the values, glued together."""
    return "".join(str(fields.get(name.strip(), "")) for name in names).encode()


def sign_v2(
    fields: dict[str, Any], signer: Identity, names: Sequence[str] = SIGNED, scheme: Any = None
) -> dict[str, Any]:
    """Return the fields with a signature as today's engine makes it; `scheme` is another padding."""
    scheme = scheme or padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    signature = signer.key.sign(signed_bytes(fields, names), scheme, hashes.SHA256())
    return {
        **fields,
        "signedFields": ",".join(names),
        "v2_signature": base64.b64encode(signature).decode(),
        "certificate": signer.pem.decode(),
    }


def sign_v1(
    fields: dict[str, Any],
    signer: Identity,
    digest: str = "sha256",
    names: Sequence[str] = (*SIGNED, "digest"),
    used: Optional[str] = None,
) -> dict[str, Any]:
    """Return the fields with a signature as an old engine makes it; `used` is the hash really used."""
    fields = {**fields, "digest": digest}
    algorithm = getattr(hashes, (used or digest).upper())()
    signature = signer.key.sign(signed_bytes(fields, names), padding.PKCS1v15(), algorithm)
    return {
        **fields,
        "signedFields": ",".join(names),
        "signature": base64.b64encode(signature).decode(),
        "certificate": signer.pem.decode(),
    }


def encode(fields: Any) -> str:
    """Return the token of the fields."""
    return base64.b64encode(json.dumps(fields).encode()).decode()


def make_token(signer: Identity, now: Optional[float] = None, **changes: Any) -> str:
    """Return a good token of the second version, valid from now."""
    now = time.time() if now is None else now
    return encode(sign_v2(make_fields(now, make_payload(now, **changes)), signer))
