"""The files that decide what is trusted: our certificate, the authorities of other daemons, the engine's certificates.

Knows which keys of the configuration name them; knows nothing of what they are used for.
"""

from __future__ import annotations

from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.backends.allowed import Allowed
from ovirt_imageio.config import Config
from ovirt_imageio.net import jws, kernel_tls
from ovirt_imageio.net.tls import ServerContext, kept_client_context
from ovirt_imageio.sessions.engine import Engine
from ovirt_imageio.sessions.keyring import KeyRing
from ovirt_imageio.sessions.signed import Verifier

__all__ = ["check_authorities", "describe_kernel", "files", "open_engine", "open_verifier", "server_context"]


def server_context(config: Config) -> Optional[ServerContext]:
    """Return the TLS context of the remote listener, None for plain HTTP. Raises errors.ConfigError."""
    tls = config.tls
    if not tls.enable:
        return None
    kernel = tls.kernel == "auto"
    return ServerContext(tls.cert_file, tls.key_file, enable_tls1_1=tls.enable_tls1_1, kernel=kernel)


def describe_kernel(config: Config) -> str:
    """Return whether the kernel can encrypt, and if not, why; for the log."""
    reason = "[tls] kernel is off" if config.tls.kernel == "off" else kernel_tls.why_not()
    return f"TLS is not in the kernel: {reason}" if reason else "TLS is in the kernel"


def open_engine(config: Config) -> Engine:
    """Return the engine whose tokens are good. Raises errors.ConfigError if its certificates cannot be used."""
    settings = config.sessions
    return Engine(
        settings.engine_cert_file,
        settings.engine_ca_cert_file,
        allow_sha1=settings.allow_sha1,
        skew=settings.allowed_skew_seconds,
    )


def open_verifier(config: Config) -> Verifier:
    """Return what decides which signed tickets are good. Raises errors.ConfigError."""
    section = "signed_tickets"
    settings = config.signed_tickets
    jws.check_support(section)
    if not settings.audience:
        raise errors.ConfigError("audience", "", "a name that tickets must have as their aud", section=section)
    try:
        allowed = Allowed(settings.allow.split())
    except errors.InvalidValue as e:
        raise errors.ConfigError("allow", str(e.value), e.expected, section=section) from e
    ring = KeyRing(settings.key_file, settings.keys_dir)
    return Verifier(ring.find, settings.audience, allowed.permits, settings.allowed_skew_seconds)


def check_authorities(config: Config) -> None:
    """Raise errors.ConfigError if this user cannot use the authorities of other daemons now."""
    section, path = config.origin_ca
    kept_client_context(path, section=section)


def files(config: Config) -> list[tuple[str, str, str]]:
    """Return the files that the configuration names, each with its section and key."""
    tls, sessions = config.tls, config.sessions
    found = []
    if tls.enable:
        found += [("tls", "cert_file", tls.cert_file), ("tls", "key_file", tls.key_file)]
    section, path = config.origin_ca
    found.append((section, "ca_file", path))
    if sessions.enable:
        found.append(("sessions", "engine_cert_file", sessions.engine_cert_file))
        found.append(("sessions", "engine_ca_cert_file", sessions.engine_ca_cert_file))
    signed = config.signed_tickets
    if signed.enable:
        for key in ("key_file", "keys_dir", "deny_file"):
            found.append(("signed_tickets", key, getattr(signed, key)))
    return [file for file in found if file[2]]
