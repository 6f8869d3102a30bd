"""The types of configuration values: text in, a checked value out.

A parser takes the text of the file, and raises ValueError telling what it expected. Knows no files, and not what the
values are used for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import RawConfigParser
from typing import Union

__all__ = [
    "LONGEST",
    "Value",
    "parse_choice",
    "parse_file",
    "parse_integer",
    "parse_level",
    "parse_seconds",
    "parse_socket",
    "parse_switch",
]

Value = Union[str, int, float, bool]

# sockaddr_un has room for 108 bytes, the last one is the terminator.
SOCKET_NAME_LIMIT = 107
# A day: nothing that waits needs more, and a typo of too many digits is found.
LONGEST = 24 * 3600

# Where systemd puts the files of LoadCredential=.
CREDENTIALS = "$CREDENTIALS_DIRECTORY"

LEVELS = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def parse_integer(text: str, low: int, high: int) -> int:
    """Return text as an integer between low and high."""
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise ValueError(f"an integer between {low} and {high}")
    return value


def parse_seconds(text: str, low: float) -> float:
    """Return text as a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not low <= value <= LONGEST:
        raise ValueError(f"seconds, between {low:g} and {LONGEST}")
    return value


def parse_switch(text: str) -> bool:
    """Return text as a boolean."""
    try:
        return RawConfigParser.BOOLEAN_STATES[text.lower()]
    except KeyError:
        raise ValueError("true, yes, on or 1, or false, no, off or 0") from None


def parse_choice(text: str, choices: tuple[str, ...]) -> str:
    """Return text in lower case if it is one of the choices."""
    if text.lower() not in choices:
        raise ValueError(" or ".join(choices))
    return text.lower()


def parse_file(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a path; one that begins with $CREDENTIALS_DIRECTORY is a file that systemd handed to the service.

    See LoadCredential= in systemd.exec(5). Without systemd it stays as it is: a program that only looks at the
    configuration has no use for the file.
    """
    first, slash, rest = text.partition("/")
    folder = environ.get(CREDENTIALS[1:])
    return f"{folder}/{rest}" if first == CREDENTIALS and slash and folder else text


def parse_socket(text: str) -> str:
    r"""Return the name of a Unix socket; an abstract one begins with NUL, however it was written.

    A NUL byte is hard to type: @/name, \0/name and "\0/name" mean the same. A relative path begins at the current
    folder: it becomes absolute, as clients of the daemon are told it.
    """
    name = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    for spelling in ("@", "\\0", "\\x00", "\\u0000"):
        if name.startswith(spelling):
            name = "\0" + name[len(spelling) :]
            break
    if "\0" in name[1:]:
        raise ValueError("a path, @name for an abstract socket, or nothing for a random one")
    if name and name[0] not in "\0/":
        name = os.path.abspath(name)
    if len(name.encode()) > SOCKET_NAME_LIMIT:
        raise ValueError(f"a socket name of at most {SOCKET_NAME_LIMIT} bytes")
    return name


def parse_level(text: str) -> str:
    """Return text as the name of a log level."""
    if text.upper() not in LEVELS:
        raise ValueError(f"one of {', '.join(LEVELS)}")
    return text.upper()
