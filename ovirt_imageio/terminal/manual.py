"""The manual page of a program, made of what its parser knows.

Pure: text from a tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ovirt_imageio.terminal.tree import Command, Option

__all__ = ["manual"]

# A title in an epilog stands alone, at the beginning of its line, and ends with a colon.
TITLE = re.compile(r"^([a-z][a-z ]*):$", re.MULTILINE)


def manual(program: Command, section: int, version: str, related: tuple[str, ...] = ()) -> str:
    """Return the page, in the language of man(7)."""
    lines = [f'.TH {program.name.upper()} {section} "" "ovirt-imageio {version}" ""']
    lines += [".SH NAME", f"{escaped(program.name)} \\- {escaped(summary(program.about))}"]
    lines += [".SH SYNOPSIS", *usage(program), ".SH DESCRIPTION", escaped(program.about)]
    lines += [".SH OPTIONS", *options(program)]
    known = sections(program.epilog)
    if program.commands:
        lines.append(".SH COMMANDS")
        for command in program.commands:
            lines += command_lines(command, known)
    lines += section_lines(known, ".SH")
    if related:
        lines += [
            ".SH SEE ALSO",
            ", ".join(f"\\fB{escaped(name)}\\fR({number})" for name, number in map(split, related)),
        ]
    return "\n".join(lines) + "\n"


def summary(about: str) -> str:
    """Return the first sentence, as it stands behind a name."""
    sentence = about.split(". ")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def split(page: str) -> tuple[str, str]:
    """Return name and section of a page like ovirt-img(1)."""
    name, _, number = page.rstrip(")").partition("(")
    return name, number


def command_lines(command: Command, known: dict[str, str]) -> Iterator[str]:
    """Yield a command; what its program says of all commands is not repeated."""
    yield f".SS {escaped(command.name)}"
    yield from usage(command)
    yield ".PP"
    yield escaped(command.about or command.help)
    for argument in command.arguments:
        if argument.help:
            yield from (".TP", f"\\fI{escaped(argument.metavar)}\\fR", escaped(argument.help))
    yield from options(command)
    own = {title: text for title, text in sections(command.epilog).items() if known.get(title) != text}
    yield from section_lines(own, ".PP\n.B")


def usage(command: Command) -> Iterator[str]:
    """Yield how to type a command."""
    yield from (".nh", ".ad l", escaped(command.usage), ".ad b", ".hy")


def options(command: Command) -> Iterator[str]:
    """Yield the options of a command."""
    for option in command.options:
        yield ".TP"
        yield flags(option)
        yield escaped(option.help)


def flags(option: Option) -> str:
    """Return how an option is typed."""
    value = f" \\fI{escaped(option.metavar)}\\fR" if option.metavar else ""
    return ", ".join(f"\\fB{escaped(flag)}\\fR{value}" for flag in option.flags)


def sections(epilog: str) -> dict[str, str]:
    """Return the texts of an epilog by their titles; what stands before the first one has "notes"."""
    parts = TITLE.split(epilog)
    found = {"notes": parts[0].strip("\n"), **dict(zip(parts[1::2], (text.strip("\n") for text in parts[2::2])))}
    return {title: text for title, text in found.items() if text}


def section_lines(found: dict[str, str], heading: str) -> Iterator[str]:
    """Yield sections: their columns are those of --help."""
    for title, text in found.items():
        yield f"{heading} {escaped(title.upper() if heading == '.SH' else title.capitalize())}"
        yield ".PP"
        yield ".nf"
        yield from (escaped(line) for line in text.split("\n"))
        yield ".fi"


def escaped(text: str) -> str:
    """Return text as it is, for roff: its hyphens can be copied, and no line is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
