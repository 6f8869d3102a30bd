"""Servers that are known by the fingerprint of their certificate, instead of an authority that vouches for them.

Knows OpenSSL; knows neither sockets nor files.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from typing import Any, Optional

from ovirt_imageio import errors

__all__ = ["PinnedContext", "format_fingerprint", "parse_fingerprint"]

# As openssl prints it: `sha256 Fingerprint=AB:CD...`; others write sha256:abcd...
FINGERPRINT = re.compile(r"(?:sha-?256(?: fingerprint)?[=:])?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.IGNORECASE)


def parse_fingerprint(text: str) -> bytes:
    """Return the SHA-256 of a certificate that text is, with colons or without. Raises errors.InvalidValue."""
    found = FINGERPRINT.fullmatch(text.strip())
    if found is None:
        raise errors.InvalidValue(
            "fingerprint",
            text,
            "the SHA-256 of the server's certificate: 64 hexadecimal digits, with or without colons",
        )
    return bytes.fromhex(found[1].replace(":", ""))


def format_fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate, in DER, as people compare it: AB:CD..."""
    return hashlib.sha256(certificate).digest().hex(":").upper()


class _Pinned:
    """Ends a handshake with a server that has another certificate, before anything else is said."""

    context: Any
    getpeercert: Any

    def do_handshake(self, *args: Any) -> None:
        """Agree on how to encrypt, and look which server that is. Raises ssl.SSLError."""
        super().do_handshake(*args)  # type: ignore[misc]
        certificate: Optional[bytes] = self.getpeercert(True)
        digest = hashlib.sha256(certificate or b"").digest()
        if not hmac.compare_digest(digest, self.context.fingerprint):
            shown = format_fingerprint(certificate) if certificate else "missing"
            error = ssl.SSLCertVerificationError(1, f"its SHA-256 fingerprint is {shown}")
            error.verify_code = 1
            error.verify_message = f"its SHA-256 fingerprint is {shown}"
            raise error


class _PinnedObject(_Pinned, ssl.SSLObject):
    """TLS in memory."""


class _PinnedSocket(_Pinned, ssl.SSLSocket):
    """TLS on a socket."""


class PinnedContext(ssl.SSLContext):
    """A context for clients that trusts exactly one certificate, whatever its name, authority and age.

        context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.pin(parse_fingerprint("ab:cd:..."))

    Threads: any, once pin() was called.
    """

    sslobject_class = _PinnedObject
    sslsocket_class = _PinnedSocket
    # Of no certificate.
    fingerprint = b""

    def pin(self, fingerprint: bytes) -> None:
        """Trust the certificate with this SHA-256, and no other one."""
        self.fingerprint = fingerprint
        self.check_hostname = False
        self.verify_mode = ssl.CERT_NONE
