"""Arguments as people type them.

Knows argparse; knows nothing of the commands of any program.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from ovirt_imageio import units

__all__ = ["Parser", "WrongArguments", "duration", "size"]

# What argparse says of a word that is not one of those it knows; Python 3.13 no longer quotes these.
CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL)


class WrongArguments(SystemExit):
    """The arguments are wrong, and that was told; ends the program with status 2."""

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistyped command, option or value with the nearest one.

    Commands whose parser is among their defaults, as `parser`, are asked for their own options.
    """

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; one that is unknown ends the program with status 2."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = getattr(found, "parser", self)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{nearest_option(parser, unknown)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, and end with status 2."""
        message += suggestion(message)
        try:
            super().error(message)
        except SystemExit:
            raise WrongArguments(message) from None


def nearest_option(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """Return what to add to a message about unknown words: the nearest option to the first that looks like one."""
    known = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    for word in words:
        near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
        if word.startswith("-") and near:
            return f"; did you mean {near[0]}?"
    return ""


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
