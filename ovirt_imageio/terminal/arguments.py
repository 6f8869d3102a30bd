"""Arguments as people type them.

Knows argparse; knows nothing of the commands of any program.
"""

from __future__ import annotations

import argparse
import difflib
import re
from typing import NoReturn

from ovirt_imageio import units

__all__ = ["Parser", "duration", "size"]

# What argparse says of a word that is not one of those it knows; Python 3.13 no longer quotes these.
CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistyped command, or value, with the nearest one."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and end with status 2."""
        super().error(message + suggestion(message))


def suggestion(message: str) -> str:
    """Return what to add to a message of argparse: the nearest of the words that it lists, if one is near."""
    found = CHOICE.search(message)
    if found is None:
        return ""
    near = difflib.get_close_matches(found[1], re.findall(r"[\w.-]+", found[2]), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def size(text: str) -> int:
    """Return a number of bytes: 512, 64k, 1.5g."""
    try:
        return units.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def duration(text: str) -> int:
    """Return a number of seconds: 90, 15m, 1h30m."""
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
