"""TLS contexts: for the server, with a certificate that can be replaced while it runs, and for clients.

Knows files and OpenSSL; knows neither sockets nor configuration objects.
"""

from __future__ import annotations

import functools
import os
import ssl
import warnings
from typing import NoReturn, Optional

from ovirt_imageio import errors
from ovirt_imageio.net import kernel_tls, x509
from ovirt_imageio.net.pinned import PinnedContext, parse_fingerprint

__all__ = ["ServerContext", "client_context", "kept_client_context"]

# TLS 1.2 with forward secrecy and authenticated encryption only; those of TLS 1.3 are all good.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"

# What clients that know no better than TLS 1.1 need; OpenSSL 3 wants to be asked twice.
LEGACY_CIPHERS = f"{CIPHERS}:ECDHE+AES:DHE+AES:AES:!aNULL:!eNULL:!MD5:@SECLEVEL=0"

# We speak nothing else: a client that would rather have HTTP/2 learns it in the handshake.
PROTOCOLS = ["http/1.1"]


class ServerContext:
    """The context for the next handshake of a server. A reload leaves the connections that exist alone.

    kernel: the kernel may encrypt, where it can; see net/kernel_tls.py.

    Raises errors.ConfigError that names the file which cannot be used, and the section of the configuration.

    >>> tls = ServerContext("cert.pem", "key.pem")
    >>> Server(address, application, tls=tls)

    Threads: any.
    """

    def __init__(
        self,
        cert_file: str,
        key_file: str,
        *,
        enable_tls1_1: bool = False,
        section: str = "tls",
        kernel: bool = False,
    ) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._section = section
        self._enable_tls1_1 = enable_tls1_1
        self._kernel = kernel
        # When the certificate that is used expires, in seconds since the epoch; None: it cannot be told.
        self.expires: Optional[int] = None
        # What the files were like when they were read, or tried, last.
        self._seen = self._look()
        self._context = self._load()

    def __call__(self) -> ssl.SSLContext:
        """Return the context for the next handshake."""
        return self._context

    def reload(self) -> None:
        """Read the files again; when they are not good, the former certificate stays, and ConfigError is raised."""
        self._seen = self._look()
        self._context = self._load()

    def follow(self) -> bool:
        """Reload if the files have changed; return whether they had. What was not good is tried once."""
        found = self._look()
        # One that is not there may be about to be replaced, or be out of reach since we gave up our rights.
        if found == self._seen or None in found:
            return False
        self.reload()
        return True

    def _look(self) -> list[Optional[tuple[int, int, int]]]:
        """Return what tells whether a file was changed, or replaced; None for one that is not there."""
        found: list[Optional[tuple[int, int, int]]] = []
        for path in (self._cert_file, self._key_file):
            try:
                status = os.stat(path)
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
            except OSError:
                found.append(None)
        return found

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers(LEGACY_CIPHERS if self._enable_tls1_1 else CIPHERS)
        with warnings.catch_warnings():
            # Python warns of TLS 1.1; so does the configuration.
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1 if self._enable_tls1_1 else ssl.TLSVersion.TLSv1_2
        # A renegotiation would only make us compute.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(PROTOCOLS)
        load_certificate(context, self._cert_file, self._key_file, self._section)
        self.expires = expiry(self._cert_file)
        if self._kernel:
            kernel_tls.allow(context)
        return context


def expiry(cert_file: str) -> Optional[int]:
    """Return when the first certificate of a PEM file expires; None if that cannot be told."""
    try:
        with open(cert_file, encoding="ascii", errors="replace") as file:
            return x509.not_after(x509.first_certificate(file.read()))
    except (OSError, ValueError):
        return None


def client_context(
    ca_file: str = "",
    *,
    cert_file: str = "",
    key_file: str = "",
    insecure: bool = False,
    fingerprint: str = "",
    section: str = "",
    kernel: bool = False,
) -> ssl.SSLContext:
    """Return a context that verifies servers by the authorities in ca_file, or by those that the system trusts.

    fingerprint: the SHA-256 of the only certificate that is trusted, instead of authorities; see net/pinned.py.
    cert_file, key_file: the certificate of the client, if the server wants one; the key may be in the same file.
    insecure: verify nothing. The data is encrypted, but any server may get it.
    section: the one of the configuration that names the files, for errors.
    kernel: the kernel may encrypt, where it can; see net/kernel_tls.py.

    Raises errors.ConfigError that names the file which cannot be used, errors.InvalidValue for the fingerprint.
    """
    context = PinnedContext(ssl.PROTOCOL_TLS_CLIENT) if fingerprint else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(PROTOCOLS)
    if isinstance(context, PinnedContext):
        context.pin(parse_fingerprint(fingerprint))
    elif insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        load_authorities(context, ca_file, section)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if cert_file:
        load_certificate(context, cert_file, key_file or cert_file, section)
    if kernel:
        kernel_tls.allow(context)
    return context


def kept_client_context(ca_file: str = "", *, section: str = "", kernel: bool = False) -> ssl.SSLContext:
    """Return the client_context of a file, the same one until the file changes: to load it takes milliseconds."""
    try:
        changed = os.stat(ca_file).st_mtime_ns if ca_file else 0
    except OSError:
        return client_context(ca_file, section=section)  # It tells what is wrong.
    return _kept_client_context(ca_file, changed, section, kernel)


@functools.lru_cache(maxsize=4)
def _kept_client_context(ca_file: str, changed: int, section: str, kernel: bool) -> ssl.SSLContext:
    return client_context(ca_file, section=section, kernel=kernel)


def load_authorities(context: ssl.SSLContext, ca_file: str, section: str) -> None:
    """Trust the authorities in the file. Raises errors.ConfigError."""
    check_file("ca_file", ca_file, section)
    try:
        context.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise errors.ConfigError("ca_file", ca_file, "PEM certificates of authorities", section) from None


def load_certificate(context: ssl.SSLContext, cert_file: str, key_file: str, section: str) -> None:
    """Use a certificate, with the chain that follows it in its file, and its key. Raises errors.ConfigError."""

    def ask_password() -> NoReturn:
        # OpenSSL would ask on a terminal that a service does not have.
        raise errors.ConfigError("key_file", key_file, "a key without a password", section)

    check_file("cert_file", cert_file, section)
    check_file("key_file", key_file, section)
    try:
        context.load_cert_chain(cert_file, key_file, ask_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            expected = f"the private key of the certificate in {cert_file}"
            raise errors.ConfigError("key_file", key_file, expected, section) from None
        if not is_pem(cert_file, b"CERTIFICATE"):
            raise errors.ConfigError("cert_file", cert_file, "a PEM certificate", section) from None
        if not is_pem(key_file, b"PRIVATE KEY"):
            raise errors.ConfigError("key_file", key_file, "a PEM private key", section) from None
        why = (error.reason or str(error)).replace("_", " ").lower()
        expected = f"a certificate and key that OpenSSL accepts: {why}"
        raise errors.ConfigError("cert_file", cert_file, expected, section) from None
    except OSError as error:
        # Taken away, for it is being replaced, since it was checked.
        raise unreadable("cert_file", cert_file, section, error) from None


def check_file(name: str, path: str, section: str) -> None:
    """Raise errors.ConfigError if there is no such file, or we may not read it."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise unreadable(name, path, section, error) from None


def unreadable(name: str, path: str, section: str, error: OSError) -> errors.ConfigError:
    expected = f"a file that we can read: {os.strerror(error.errno or 0).lower()}"
    return errors.ConfigError(name, path, expected, section)


def is_pem(path: str, kind: bytes) -> bool:
    """Return True if the file has a PEM block of the kind."""
    with open(path, "rb") as file:
        return kind + b"-----" in file.read()
