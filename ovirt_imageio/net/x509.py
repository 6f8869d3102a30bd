"""What we need to know of certificates, read by hand: DER is simple, and a library for it is not everywhere.

Pure. Raises ValueError for what is not a certificate. Verifies nothing: OpenSSL does.
"""

from __future__ import annotations

import base64
import calendar
import re

__all__ = ["first_certificate", "not_after", "public_key"]

# Tags: the version, which has one of its own ([0]), and one of the two kinds of time.
VERSION = 0xA0
UTC_TIME = 0x17

TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


def first_certificate(pem: str) -> bytes:
    """Return the first certificate of a PEM text, in DER; the chain follows it."""
    begin, end = pem.index("-----BEGIN CERTIFICATE"), pem.index("-----END CERTIFICATE-----")
    return base64.b64decode("".join(pem[begin:end].split("\n")[1:]))


def public_key(der: bytes) -> bytes:
    """Return the subjectPublicKeyInfo of a certificate."""
    at = field(der, 5)
    return der[at : element(der, at)[1]]


def not_after(der: bytes) -> int:
    """Return when a certificate expires, in seconds since the epoch."""
    # Validity ::= SEQUENCE { notBefore, notAfter }
    at, _ = element(der, field(der, 3))
    _, at = element(der, at)
    begin, end = element(der, at)
    text = der[begin:end].decode("ascii")
    # RFC 5280, 4.1.2.5: years of two digits are those from 1950 on.
    if der[at] == UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    found = TIME.fullmatch(text)
    if found is None:
        raise ValueError("the certificate has no end")
    return calendar.timegm(tuple(map(int, found.groups())))


def field(der: bytes, number: int) -> int:
    """Return where a field of a certificate begins; the serial number is the first one, 0.

    RFC 5280, 4.1: Certificate ::= SEQUENCE { tbsCertificate ::= SEQUENCE { version, serialNumber, signature, issuer,
    validity, subject, subjectPublicKeyInfo, ... }, ... }; the first version is not written.
    """
    at, _ = element(der, 0)
    at, _ = element(der, at)
    if der[at : at + 1] == bytes([VERSION]):
        _, at = element(der, at)
    for _ in range(number):
        _, at = element(der, at)
    return at


def element(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content of a DER element begins, and where it ends."""
    begin = at + 2
    if begin > len(der):
        raise ValueError("the certificate ends too early")
    length = der[at + 1]
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[begin : begin + size], "big")
        begin += size
    if begin + length > len(der):
        raise ValueError("the certificate ends too early")
    return begin, begin + length
