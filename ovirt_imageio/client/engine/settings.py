"""What the command line of an engine command leaves open: the configuration file, the environment, the password.

The command line wins over the section of the configuration file, and that over the environment and the defaults.
"""

from __future__ import annotations

import argparse
import configparser
import getpass
import logging
import os
import stat
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Callable, Optional

from ovirt_imageio.client.engine.connection import Login
from ovirt_imageio.errors import ConfigError, Error, InvalidValue

__all__ = ["complete", "login", "read_password"]

log = logging.getLogger(__name__)

FILE_NAME = "ovirt-img.conf"

# What the engine's own path is; the SDK wants it, people may leave it out.
API_PATH = "/ovirt-engine/api"

LEVELS = ("debug", "info", "warning", "error")
BOOLEANS = configparser.RawConfigParser.BOOLEAN_STATES

# Seconds that the engine may take to make a disk.
DISK_TIMEOUT = 120

DEFAULTS = {"log_level": "warning", "disk_timeout": DISK_TIMEOUT, "description": "Uploaded by ovirt-img"}
KEYS = ("engine_url", "username", "password", "cafile", "disk_timeout", "log_file", "log_level", "description")


def complete(options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Fill in what the command line left open; a mistake ends the program with status 2."""
    try:
        section = read_section(config_path(environ), options.config) if options.config else {}
        take(options, section, environ)
        check(options)
    except Error as error:
        options.parser.error(str(error))


def config_path(environ: Mapping[str, str]) -> Path:
    """Return where the configuration file is."""
    folder = environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / FILE_NAME


def read_section(path: Path, name: str) -> dict[str, str]:
    """Return the keys of a section. Raises ConfigError."""
    parser = configparser.RawConfigParser()
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except configparser.Error as error:
        # Its own words may quote a line with the password.
        raise ConfigError("file", str(path), f"an INI file ({type(error).__name__})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("file", str(path), f"a file that can be read ({error})") from error
    if not parser.has_section(name):
        known = ", ".join(parser.sections()) or "it has none"
        raise ConfigError("section", name, f"a section of {path}: {known}")
    return dict(parser.items(name))


def take(options: argparse.Namespace, section: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Fill in what is open."""
    # A caller that names authorities wants them to be asked.
    if not options.insecure and not options.cafile and "secure" in section:
        options.insecure = not parse_boolean("secure", section["secure"])
    for key in KEYS:
        if getattr(options, key) is None:
            setattr(options, key, section.get(key, DEFAULTS.get(key)))
    if options.cafile is None and not options.insecure:
        options.cafile = environ.get("OVIRT_IMG_CA") or None


def check(options: argparse.Namespace) -> None:
    """Check what a configuration file may have said. Raises InvalidValue."""
    missing = [f"--{key.replace('_', '-')}" for key in ("engine_url", "username") if not getattr(options, key)]
    if needs_engine(options) and missing:
        options.parser.error(f"the following arguments are required: {', '.join(missing)}")
    if options.engine_url:
        options.engine_url = parse_url(options.engine_url)
    if options.log_level not in LEVELS:
        raise InvalidValue("log_level", options.log_level, f"one of {', '.join(LEVELS)}")
    timeout = str(options.disk_timeout)
    if not (timeout.isascii() and timeout.isdigit()):
        raise InvalidValue("disk_timeout", timeout, "a number of seconds")
    options.disk_timeout = int(timeout)


def needs_engine(options: argparse.Namespace) -> bool:
    """Does the command speak to an engine? A restore may do without."""
    if options.command != "restore":
        return True
    return not (options.url or options.list or options.dry_run)


def parse_boolean(key: str, text: str) -> bool:
    """Return what 1, yes, true, on and their opposites mean."""
    if text.lower() not in BOOLEANS:
        raise InvalidValue(key, text, "yes or no")
    return BOOLEANS[text.lower()]


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
