"""The certificates of the engine on disk, read again when they change: renewing them needs no restart.

Knows files; what a token must be like is known elsewhere.
"""

from __future__ import annotations

import logging
import os
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.sessions.token import Access, Verifier

__all__ = ["Engine", "Stamp", "stamp_of"]

log = logging.getLogger("sessions")

# What tells that a file was changed: its time, its inode and its size, for within one tick of the clock it may be
# replaced, or be emptied, read by us, and filled.
Stamp = tuple[int, int, int]


class Engine:
    """The engine whose tokens are good, by its certificate and that of its authority.

    Raises errors.ConfigError, which names key and file, if one of them cannot be used now. Later that is logged, and
    every token refused.

        engine = Engine("/etc/pki/ovirt-engine/certs/engine.cer", "/etc/pki/ovirt-engine/ca.pem")
        access = engine.verify(token, time.time())

    Threads: any number at once.
    """

    def __init__(self, cert_file: str, ca_file: str, *, allow_sha1: bool = False, skew: int = 0) -> None:
        self._files = (("engine_cert_file", cert_file), ("engine_ca_cert_file", ca_file))
        self._allow_sha1 = allow_sha1
        self._skew = skew
        # Replaced as a whole, so that no thread sees half of it.
        self._loaded: tuple[Optional[tuple[Stamp, ...]], Verifier] = (None, self._load())

    def verify(self, token: str, now: float) -> Access:
        """Return what the token allows; raises errors.NotAuthenticated."""
        return self._verifier().verify(token, now)

    def _verifier(self) -> Verifier:
        stamp, verifier = self._loaded
        try:
            found = tuple(stamp_of(path) for _, path in self._files)
            if found != stamp:
                verifier = self._load()
                self._loaded = (found, verifier)
        except (OSError, errors.ConfigError) as e:
            log.error("Cannot verify tokens: %s", e)
            raise errors.NotAuthenticated("this proxy cannot verify tokens now: its log tells why") from e
        return verifier

    def _load(self) -> Verifier:
        signer, authority = (read(name, path) for name, path in self._files)
        return Verifier(signer, authority, allow_sha1=self._allow_sha1, skew=self._skew)


def read(name: str, path: str) -> bytes:
    """Return the content of the file that the key `name` of the configuration tells."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError as e:
        expected = f"a certificate file that can be read: {e.strerror}"
        raise errors.ConfigError(name, path, expected, section="sessions") from e


def stamp_of(path: str) -> Stamp:
    """Return what tells whether a file was changed."""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ino, found.st_size
