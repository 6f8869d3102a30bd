"""The signed access token of the proxy: decode it, verify it, tell what it allows.

A token is one line of base64 of a JSON object whose values are all strings:

    salt, validFrom, validTo, data      signed; v1 has `digest` too: the name of the hash
    signedFields                        which values were signed, in this order: "salt,validFrom,validTo,data"
    v2_signature                        v2: RSASSA-PSS with SHA-256 over the values, glued together
    signature                           v1: RSA PKCS#1 v1.5 with `digest`
    certificate                         of the signer; never trusted: we know the only signer that we accept

`data` is JSON once more: which ticket, on which host, until when. It is opaque until the signature was checked.

Pure: certificates come as bytes and the time as a number. Knows no files, no sessions, no HTTP. `cryptography` is
imported by the first Verifier only, so that a proxy without sessions need not have it.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Optional
from urllib.parse import urlsplit

from ovirt_imageio import errors
from ovirt_imageio.origin.url import bracketed

__all__ = ["Access", "Verifier", "check_support"]

# A token that embeds a 4096 bit certificate has about 4 KiB.
TOKEN_LIMIT = 32 * 1024

# The hashes of v1 that are safe today; "sha1" is accepted on request only.
SAFE_DIGESTS = ("sha256", "sha384", "sha512")

# Without these among the signed fields, half of the token could be exchanged unnoticed.
MUST_BE_SIGNED = frozenset({"salt", "data", "validFrom", "validTo"})

# Seconds since the epoch that a date can still express: the last second of the year 9999.
LAST_SECOND = 253402300799

DATE = re.compile(r"[0-9]{14}")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# A host name, an IPv4 address, or an IPv6 address in brackets; and perhaps a port.
HOST = re.compile(r"([0-9A-Za-z]([0-9A-Za-z._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
# It is written to the log.
TRANSFER_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


@dataclass(frozen=True)
class Access:
    """What a verified token allows: to use `ticket_id` on the host at `base_url` until `expires`."""

    base_url: str
    ticket_id: str
    # Both in seconds since the epoch: when the access ends, and when the token can no longer be shown.
    expires: int
    shown_until: int
    transfer_id: Optional[str] = None

    @property
    def url(self) -> str:
        """The transfer URL on the host."""
        return f"{self.base_url}/images/{self.ticket_id}"


def check_support() -> None:
    """Raise errors.ConfigError, with advice, if the `cryptography` library is not there."""
    try:
        import cryptography.x509  # noqa: F401
    except ImportError as e:
        raise errors.ConfigError(
            "enable", "true", "the Python package 'cryptography', which is not installed", section="sessions"
        ) from e


class Verifier:
    """Verifies tokens of one signer.

    signer_pem is the certificate of the engine, ca_pem the certificate of the authority that must have issued it
    (None: the signer is trusted as it is). `skew` is by how many seconds the clocks of the engine and of this host may
    differ. Raises errors.ConfigError if a certificate cannot be used.

        access = Verifier(signer, ca).verify(token, time.time())
    """

    def __init__(self, signer_pem: bytes, ca_pem: Optional[bytes], *, allow_sha1: bool = False, skew: int = 0) -> None:
        check_support()
        self._signer = load_certificate(signer_pem, "engine_cert_file")
        self._ca = None if ca_pem is None else load_certificate(ca_pem, "engine_ca_cert_file")
        self._digests = (*SAFE_DIGESTS, "sha1") if allow_sha1 else SAFE_DIGESTS
        self._skew = skew
        self._check_signer_key()

    def verify(self, token: str, now: float) -> Access:
        """Return what the token allows at `now`; raises errors.NotAuthenticated with the reason if nothing."""
        fields = decode(token)
        message = signed_message(fields)
        self._check_signer(now)
        if "v2_signature" in fields:
            # Never fall back to v1 when v2 does not hold: that would make v2 as weak as v1.
            self._check_v2(fields, message)
        else:
            self._check_v1(fields, message)
        valid_to = self._check_window(fields, now)
        return self._access(fields["data"], valid_to, now)

    def _check_signer_key(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        if not isinstance(self._signer.public_key(), rsa.RSAPublicKey):
            raise errors.ConfigError(
                "engine_cert_file", "(certificate)", "a certificate with an RSA key", section="sessions"
            )

    def _check_signer(self, now: float) -> None:
        """Check that the authority issued the signer certificate, and that it is valid today."""
        if self._ca is None:
            return
        if not is_issued_by(self._signer, self._ca):
            refuse("the engine certificate was not issued by the configured authority")
        for certificate, name in ((self._signer, "engine"), (self._ca, "authority's")):
            start, end = validity(certificate)
            if not start <= now <= end:
                refuse(f"the {name} certificate is expired or not yet valid")

    def _check_v2(self, fields: Mapping[str, str], message: bytes) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        sha256 = hashes.SHA256()
        # The signers of v2 always use the longest salt; no other length is accepted. PSS.MAX_LENGTH would not do: when
        # verifying, it stands for any length.
        longest = (self._signer.public_key().key_size + 6) // 8 - sha256.digest_size - 2
        pss = padding.PSS(mgf=padding.MGF1(sha256), salt_length=longest)
        self._check_signature(unbase64(fields["v2_signature"], "v2_signature"), message, pss, sha256)

    def _check_v1(self, fields: Mapping[str, str], message: bytes) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        digest = fields["digest"].lower().replace("-", "")
        if digest not in self._digests:
            advice = "; [sessions] allow_sha1 would accept it" if digest == "sha1" else ""
            refuse(f"the token uses an unsafe or unknown digest{advice}")
        algorithm: hashes.HashAlgorithm = getattr(hashes, digest.upper())()
        signature = unbase64(fields["signature"], "signature")
        self._check_signature(signature, message, padding.PKCS1v15(), algorithm)

    def _check_signature(self, signature: bytes, message: bytes, padding: Any, algorithm: Any) -> None:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

        try:
            self._signer.public_key().verify(signature, message, padding, algorithm)
        except InvalidSignature:
            refuse("the signature of the token does not match")
        except UnsupportedAlgorithm:
            # Enterprise Linux 9 forbids SHA-1 signatures by policy, whatever we allow.
            refuse(f"this system does not support {algorithm.name} signatures")

    def _check_window(self, fields: Mapping[str, str], now: float) -> int:
        """Check the validity of the envelope; return its end."""
        start = parse_date(fields["validFrom"], "validFrom")
        end = parse_date(fields["validTo"], "validTo")
        if end < start:
            refuse("the token ends before it begins")
        if now < start - self._skew:
            refuse("the token is not yet valid")
        if now > end + self._skew:
            refuse("the token is expired")
        return end

    def _access(self, data: str, valid_to: int, now: float) -> Access:
        payload = load_object(data, "data")
        start = seconds(payload, "nbf")
        end = seconds(payload, "exp")
        seconds(payload, "iat")
        if now < start - self._skew:
            refuse("the access is not yet valid")
        if now >= end + self._skew:
            refuse("the access is expired")
        ticket_id = text(payload, "transfer-ticket")
        if not UUID.fullmatch(ticket_id):
            refuse("the transfer-ticket is not a UUID")
        transfer_id = text(payload, "transfer-id") if "transfer-id" in payload else None
        if transfer_id is not None and not TRANSFER_ID.fullmatch(transfer_id):
            refuse("the transfer-id is not an identifier")
        base_url = parse_base_url(text(payload, "imaged-uri"))
        return Access(base_url, ticket_id, end + self._skew, valid_to + self._skew, transfer_id)


def decode(token: str) -> dict[str, str]:
    """Return the fields of the envelope; every one that is needed is there and is a string."""
    if len(token) > TOKEN_LIMIT:
        refuse(f"the token is longer than {TOKEN_LIMIT} characters")
    raw = unbase64(token.strip(), "token")
    try:
        document = raw.decode("utf-8")
    except UnicodeDecodeError:
        refuse("the token is not UTF-8")
    fields = load_object(document, "token")
    for name, value in fields.items():
        if not isinstance(value, str):
            refuse(f"the value of a field is not a string: {errors.quoted(name)}")
    needed = ["salt", "data", "validFrom", "validTo", "signedFields"]
    if "v2_signature" not in fields:
        needed += ["signature", "digest"]
    for name in needed:
        if not fields.get(name):
            refuse(f"the token has no {name}")
    return fields


def signed_message(fields: Mapping[str, str]) -> bytes:
    """Return what the signer signed: the values of the signed fields, in their order, with nothing between."""
    names = signed_names(fields)
    return "".join(fields[name] for name in names).encode("utf-8", "surrogatepass")


def signed_names(fields: Mapping[str, str]) -> Sequence[str]:
    """Return the names of the signed fields; what matters must be among them, each once."""
    names = [name.strip(" ") for name in fields["signedFields"].split(",")]
    if len(set(names)) != len(names):
        refuse("signedFields repeats a field")
    for name in names:
        if name not in fields:
            refuse("signedFields names a field that is not there")
    must = MUST_BE_SIGNED if "v2_signature" in fields else MUST_BE_SIGNED | {"digest"}
    missing = sorted(must.difference(names))
    if missing:
        refuse(f"{', '.join(missing)} not signed")
    return names


def load_object(document: str, what: str) -> dict[str, Any]:
    """Return a JSON object; a key that comes twice is refused, for readers differ in which one they take."""
    try:
        value = json.loads(document, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        refuse(f"{what} is not a JSON object")
    if not isinstance(value, dict):
        refuse(f"{what} is not a JSON object")
    return value


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary of pairs; raises ValueError if a key comes twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key comes twice")
    return result


def unbase64(value: str, what: str) -> bytes:
    """Return the bytes of a base64 text of the standard alphabet, with its padding."""
    try:
        return base64.b64decode(value.encode("ascii"), validate=True) or refuse(f"{what} is empty")
    except (UnicodeEncodeError, binascii.Error):
        refuse(f"{what} is not base64")


def parse_date(value: str, name: str) -> int:
    """Return the seconds since the epoch of YYYYMMDDhhmmss in UTC."""
    if not DATE.fullmatch(value):
        refuse(f"{name} is not a date")
    try:
        return calendar.timegm(time.strptime(value, "%Y%m%d%H%M%S"))
    except ValueError:
        refuse(f"{name} is not a date")


def seconds(payload: Mapping[str, Any], name: str) -> int:
    """Return a time of the payload: whole seconds since the epoch."""
    value = payload.get(name)
    if type(value) is not int or not 0 <= value <= LAST_SECOND:
        refuse(f"{name} is not a time in seconds since the epoch")
    return value


def text(payload: Mapping[str, Any], name: str) -> str:
    """Return a text of the payload."""
    value = payload.get(name)
    if not isinstance(value, str):
        refuse(f"{name} is not a text")
    return value


def parse_base_url(value: str) -> str:
    """Return an https URL of a host, without a path: whatever else stands there could lead us astray."""
    scheme, separator, rest = bracketed(value).partition("://")
    host = rest[:-1] if rest.endswith("/") else rest
    if scheme.lower() != "https" or not separator or not HOST.fullmatch(host):
        refuse("imaged-uri is not https://HOST[:PORT]")
    url = f"https://{host}"
    try:
        urlsplit(url).port  # noqa: B018  (parses it)
    except ValueError:
        refuse("imaged-uri is not https://HOST[:PORT]")
    return url


def load_certificate(pem: bytes, name: str) -> Any:
    """Return the first certificate of a PEM file; a Java engine breaks its lines at 76 columns with CRLF."""
    from cryptography import x509

    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    body = pem.partition(begin)[2].partition(end)[0]
    try:
        return x509.load_der_x509_certificate(base64.b64decode(b"".join(body.split()), validate=True))
    except (ValueError, TypeError) as e:
        raise errors.ConfigError(name, "(certificate)", "a certificate in PEM format", section="sessions") from e


def is_issued_by(certificate: Any, ca: Any) -> bool:
    """Return True if the authority's key signed the certificate, in the authority's name."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    if certificate.issuer != ca.subject:
        return False
    key, signature, body = ca.public_key(), certificate.signature, certificate.tbs_certificate_bytes
    try:
        algorithm = certificate.signature_hash_algorithm
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, body, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, body, ec.ECDSA(algorithm))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, TypeError):
        return False
    return True


def validity(certificate: Any) -> tuple[int, int]:
    """Return from when to when a certificate is valid, in seconds since the epoch."""
    # cryptography 42 renamed them; Enterprise Linux 9 has 36.
    new = hasattr(certificate, "not_valid_before_utc")
    start = certificate.not_valid_before_utc if new else certificate.not_valid_before
    end = certificate.not_valid_after_utc if new else certificate.not_valid_after
    return calendar.timegm(start.timetuple()), calendar.timegm(end.timetuple())


def refuse(reason: str) -> NoReturn:
    """Raise the one error of this module about tokens."""
    raise errors.NotAuthenticated(reason)
