"""The files that decide what is trusted: our certificate, the authorities of other daemons, the engine's certificates.

Knows which keys of the configuration name them; knows nothing of what they are used for.
"""

from __future__ import annotations

from typing import Optional

from ovirt_imageio.config import Config
from ovirt_imageio.net.tls import ServerContext, kept_client_context
from ovirt_imageio.sessions.engine import Engine

__all__ = ["check_authorities", "files", "open_engine", "server_context"]


def server_context(config: Config) -> Optional[ServerContext]:
    """Return the TLS context of the remote listener, None for plain HTTP. Raises errors.ConfigError."""
    tls = config.tls
    return ServerContext(tls.cert_file, tls.key_file, enable_tls1_1=tls.enable_tls1_1) if tls.enable else None


def open_engine(config: Config) -> Engine:
    """Return the engine whose tokens are good. Raises errors.ConfigError if its certificates cannot be used."""
    settings = config.sessions
    return Engine(
        settings.engine_cert_file,
        settings.engine_ca_cert_file,
        allow_sha1=settings.allow_sha1,
        skew=settings.allowed_skew_seconds,
    )


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
    return [file for file in found if file[2]]
