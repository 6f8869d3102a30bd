"""Which engine is asked, and as which user: the URL, the user, and the password.

Options, configuration file and environment have been read by then; see client/defaults.py.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import stat
from typing import Callable, Optional

from ovirt_imageio.client.defaults import config_path
from ovirt_imageio.client.engine.connection import Login
from ovirt_imageio.errors import InvalidValue

__all__ = ["login", "read_password"]

log = logging.getLogger(__name__)


def login(options: argparse.Namespace) -> Login:
    """Return where the engine is and the user; asks for the password if nothing tells it."""
    return Login(options.engine_url, options.username, read_password(options), options.cafile, not options.insecure)


def read_password(options: argparse.Namespace, ask: Callable[[str], str] = getpass.getpass) -> str:
    """Return the password: that of --password-file, that of the configuration file, or what the user types."""
    if options.password_file:
        with open(options.password_file, encoding="utf-8") as file:
            warn_if_shared(file.fileno(), options.password_file)
            try:
                return file.read().rstrip("\r\n")
            except UnicodeDecodeError:
                raise InvalidValue("password file", options.password_file, "UTF-8 text") from None
    password: Optional[str] = options.password
    if password is not None:
        warn_about_config()
        return password
    try:
        return ask(f"Password of {options.username}: ")
    except EOFError:
        raise InvalidValue("password", "", "typed, or in the file that --password-file names") from None


def warn_about_config() -> None:
    """Warn if others may read the configuration file with the password in it."""
    path = config_path(os.environ)
    if path.exists():
        with path.open("rb") as file:
            warn_if_shared(file.fileno(), str(path))


def warn_if_shared(descriptor: int, path: str) -> None:
    """Warn if others than the owner may read a file."""
    if os.fstat(descriptor).st_mode & (stat.S_IRGRP | stat.S_IROTH):
        log.warning("Others may read the password in %s: chmod 600 it", path)
