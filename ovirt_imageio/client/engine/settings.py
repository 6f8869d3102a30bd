"""Which engine is asked, and as which user: the URL, the user, and the password.

Options, configuration file and environment have been read by then; see client/defaults.py.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import stat
import urllib.parse
from typing import Callable, Optional

from ovirt_imageio.client.defaults import config_path
from ovirt_imageio.client.engine.connection import Login
from ovirt_imageio.errors import Error, InvalidValue

__all__ = ["check", "login", "read_password"]

log = logging.getLogger(__name__)

# What the engine's own path is; the SDK wants it, people may leave it out.
API_PATH = "/ovirt-engine/api"


def check(options: argparse.Namespace) -> None:
    """Check what all sources together say of the engine; a mistake ends the program with status 2."""
    missing = [f"--{key.replace('_', '-')}" for key in ("engine_url", "username") if not getattr(options, key)]
    if needs_engine(options) and missing:
        options.parser.error(f"the following arguments are required: {', '.join(missing)}")
    if needs_engine(options) and getattr(options, "fingerprint", None):
        options.parser.error("--fingerprint goes with --url: an engine is trusted by --cafile")
    try:
        if options.engine_url:
            options.engine_url = parse_url(options.engine_url)
        timeout = str(options.disk_timeout)
        if not (timeout.isascii() and timeout.isdigit()):
            raise InvalidValue("disk_timeout", timeout, "a number of seconds")
        options.disk_timeout = int(timeout)
    except Error as error:
        options.parser.error(str(error))


def needs_engine(options: argparse.Namespace) -> bool:
    """Does the command speak to an engine? A restore may do without."""
    if options.command != "restore":
        return True
    return not (options.url or options.list or options.dry_run)


def parse_url(text: str) -> str:
    """Return the URL of the engine without the path of its API; one with a password in it is not repeated."""
    try:
        parts = urllib.parse.urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if is_url and "@" in parts.netloc:
        raise InvalidValue("engine URL", parts.hostname, "a URL without user and password")
    if not is_url or "@" in text:
        raise InvalidValue("engine URL", text.rpartition("@")[2], "like https://engine.example.com")
    return text.rstrip("/").removesuffix(API_PATH).rstrip("/")


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
