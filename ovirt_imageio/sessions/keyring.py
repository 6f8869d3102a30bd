"""The public keys of those whose tickets are good, from files that are read again when they change.

    key_file    one key: it signs everything
    keys_dir    a file KID.pem for each key: a ticket says which one signed it; a key that was removed is not trusted

Knows files; what a ticket must be like is known elsewhere.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from typing import Optional

from ovirt_imageio import errors
from ovirt_imageio.net.jws import Key
from ovirt_imageio.sessions.engine import Stamp, stamp_of

__all__ = ["KeyRing"]

log = logging.getLogger("sessions")

# A file name, and nothing that leads out of the folder.
KID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")

# A public key has 100 to 1000 bytes, a certificate a few thousand.
MAX_FILE = 64 * 1024


class KeyRing:
    """Keys by their id.

    Raises errors.ConfigError, which names key and file, if there is none now that can be used. Later that is logged,
    and what it would have to verify refused.

    Threads: any number at once.
    """

    def __init__(self, key_file: str = "", keys_dir: str = "") -> None:
        self._key_file = key_file
        self._keys_dir = keys_dir
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._keys: dict[str, tuple[Stamp, Key]] = {}
        self._check()

    def find(self, kid: Optional[str]) -> Key:
        """Return the key that must have signed; raises errors.NotAuthenticated if there is none."""
        if self._key_file:
            path = self._key_file
        elif kid is None:
            raise errors.NotAuthenticated("the signed ticket is not good: it does not say which key signed it (kid)")
        elif not KID.fullmatch(kid):
            raise unknown()
        else:
            path = os.path.join(self._keys_dir, f"{kid}.pem")
        try:
            stamp = stamp_of(path)
            with self._lock:
                found = self._keys.get(path)
            if found is None or found[0] != stamp:
                found = stamp, load(path)
                with self._lock:
                    self._keys[path] = found
        except OSError as e:
            with self._lock:
                self._keys.pop(path, None)
            if not self._key_file and isinstance(e, FileNotFoundError):
                raise unknown() from None
            log.error("Cannot read %s: %s", path, e.strerror)
            raise errors.NotAuthenticated("signed tickets cannot be verified now: the log tells why") from e
        except errors.InvalidValue as e:
            log.error("Cannot use %s: %s", path, e)
            raise errors.NotAuthenticated("signed tickets cannot be verified now: the log tells why") from e
        return found[1]

    def _check(self) -> None:
        """Raise errors.ConfigError unless there is a key."""
        name, path = ("key_file", self._key_file) if self._key_file else ("keys_dir", self._keys_dir)
        if bool(self._key_file) == bool(self._keys_dir):
            raise errors.ConfigError(
                "key_file", self._key_file, "one of key_file and keys_dir", section="signed_tickets"
            )
        try:
            paths = [path] if self._key_file else [entry.path for entry in os.scandir(path) if is_key(entry.name)]
        except OSError as e:
            raise unusable(name, path, e) from e
        if not paths:
            raise errors.ConfigError(name, path, "a folder with a file KID.pem", section="signed_tickets")
        for one in paths:
            try:
                load(one)
            except (OSError, errors.InvalidValue) as e:
                raise unusable(name, one, e) from e


def is_key(name: str) -> bool:
    """Return True if it is the name of a file with a key."""
    return name.endswith(".pem") and KID.fullmatch(name[: -len(".pem")]) is not None


def load(path: str) -> Key:
    """Return the key in a file. Raises OSError or errors.InvalidValue."""
    with open(path, "rb") as file:
        return Key(file.read(MAX_FILE))


def unknown() -> errors.NotAuthenticated:
    return errors.NotAuthenticated("the signed ticket is not good: its key is not known here")


def unusable(name: str, path: str, error: Exception) -> errors.ConfigError:
    reason = error.strerror if isinstance(error, OSError) else getattr(error, "expected", error)
    return errors.ConfigError(name, path, f"keys that can be used: {reason}", section="signed_tickets")
