"""What a parser knows, as a tree: commands, their options and arguments. Manual pages and completions are made of it.

Knows argparse; knows nothing of manual pages and shells.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FILE", "FOLDER", "NOTHING", "WORD", "Argument", "Command", "Option", "describe"]

# What is expected: a file, a folder, one of `choices` or a word of the user, or nothing.
FILE = "file"
FOLDER = "folder"
WORD = "word"
NOTHING = "nothing"

# How arguments are called that are the name of a file.
FILES = re.compile(r"FILE|PATH|IMAGE|JSON|BASE|SOCKET")


@dataclass(frozen=True)
class Option:
    """An option: `flags` as they are typed, the short one first, and what follows them."""

    flags: tuple[str, ...]
    metavar: str
    kind: str
    choices: tuple[str, ...]
    help: str
    is_repeatable: bool = False


@dataclass(frozen=True)
class Argument:
    """An argument that has its place."""

    metavar: str
    kind: str
    help: str


@dataclass(frozen=True)
class Command:
    """A program, or one of its commands. `help` is a line, `about` some more, `epilog` sections with titles."""

    name: str
    help: str
    usage: str
    about: str
    epilog: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    commands: tuple[Command, ...]


def describe(parser: argparse.ArgumentParser, help: str = "") -> Command:
    """Return the tree of a parser."""
    name = parser.prog.rpartition(" ")[2]
    actions = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    return Command(
        name,
        help,
        usage,
        parser.description or "",
        parser.epilog or "",
        tuple(option(parser, action) for action in actions if action.option_strings),
        tuple(argument(parser, action) for action in actions if is_argument(action)),
        tuple(command for action in actions for command in commands(action)),
    )


def is_argument(action: argparse.Action) -> bool:
    """Has it a place of its own, and is it not a command?"""
    return not action.option_strings and not isinstance(action, argparse._SubParsersAction)


def commands(action: argparse.Action) -> Iterator[Command]:
    """Yield the commands among which an action chooses."""
    if isinstance(action, argparse._SubParsersAction):
        helps = {item.dest: item.help or "" for item in action._choices_actions}
        for name, parser in action.choices.items():
            yield describe(parser, helps.get(name, ""))


def option(parser: argparse.ArgumentParser, action: argparse.Action) -> Option:
    """Return an option."""
    takes_value = action.nargs != 0
    choices = tuple(map(str, action.choices or ()))
    metavar = metavar_of(action) if takes_value else ""
    return Option(
        tuple(sorted(action.option_strings, key=len)),
        metavar,
        kind_of(metavar, choices) if takes_value else NOTHING,
        choices,
        expanded(parser, action),
        isinstance(action, argparse._AppendAction),
    )


def argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    """Return an argument that has its place."""
    metavar = metavar_of(action)
    return Argument(metavar, kind_of(metavar, ()), expanded(parser, action))


def metavar_of(action: argparse.Action) -> str:
    """Return how a value is called."""
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def kind_of(metavar: str, choices: tuple[str, ...]) -> str:
    """Return what a value is, by how it is called."""
    if choices:
        return WORD
    return FOLDER if metavar == "DIR" else FILE if FILES.search(metavar) else WORD


def expanded(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the help of an action, with its default."""
    return parser._get_formatter()._expand_help(action) if action.help else ""
