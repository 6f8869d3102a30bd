"""What the command line of ovirt-img leaves open: the configuration file and the environment.

    command line  >  section of --config NAME  >  environment  >  section [DEFAULT]  >  built in

Knows argparse, the file and its keys; knows nothing of what the commands do.
"""

from __future__ import annotations

import argparse
import configparser
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from ovirt_imageio.errors import ConfigError, Error, InvalidValue

__all__ = ["KEYS", "complete", "config_path", "variable"]

FILE_NAME = "ovirt-img.conf"
COMMON = "DEFAULT"

# As people know them; each is an option of some commands, but for the last two.
KEYS = (
    *("cafile", "fingerprint", "secure", "proxy_url", "max_workers", "bandwidth", "retries", "output"),
    *("log_file", "log_level", "engine_url", "username", "description", "password", "disk_timeout"),
)
# What decides together whom to trust.
TRUST = ("cafile", "fingerprint", "secure")
# A variable is seen by other programs of the user.
SECRET = "password"

BOOLEANS = configparser.RawConfigParser.BOOLEAN_STATES

# Stands where the command line says nothing.
UNSET = object()


@dataclass(frozen=True)
class Source:
    """Where values come from; `where` tells people the place of one, as (section, file and line)."""

    values: Mapping[str, str]
    where: Callable[[str], tuple[str, str]]

    def mistake(self, key: str, expected: str) -> Error:
        """Return what is wrong with a value."""
        section, file = self.where(key)
        if not file:
            return InvalidValue(variable(key), self.values[key], expected)
        return ConfigError(key, self.values[key], expected, section, file)


def complete(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> argparse.Namespace:
    """Parse arguments, and fill in what they leave open; a mistake ends the program with status 2."""
    command: Optional[argparse.ArgumentParser] = getattr(parser.parse_args(arguments), "parser", None)
    if command is None:
        return parser.parse_args(arguments)
    known = {dest_of(key): command.get_default(dest_of(key)) for key in KEYS}
    known = {dest: default for dest, default in known.items() if has(command, dest)}
    command.set_defaults(**dict.fromkeys(known, UNSET))
    options = parser.parse_args(arguments)
    command.set_defaults(**known)
    try:
        sources = find_sources(getattr(options, "config", None), environ, warn)
        fill(options, command, sources)
    except Error as error:
        command.error(str(error))
    for dest, default in known.items():
        if getattr(options, dest) is UNSET:
            setattr(options, dest, default)
    return options


def has(command: argparse.ArgumentParser, dest: str) -> bool:
    """Does a command know an option?"""
    return dest in command._defaults or any(action.dest == dest for action in command._actions)


def dest_of(key: str) -> str:
    """Return what the option of a key is called in the parsed arguments."""
    return "insecure" if key == "secure" else key


def variable(key: str) -> str:
    """Return the variable of the environment for a key."""
    return "OVIRT_IMG_CA" if key == "cafile" else f"OVIRT_IMG_{key.upper()}"


# Sources


def find_sources(section: Optional[str], environ: Mapping[str, str], warn: Callable[[str], None]) -> list[Source]:
    """Return where values come from, what counts most first. Raises ConfigError."""
    path = config_path(environ)
    text, sections = "", dict[str, dict[str, str]]()
    if section is not None or path.exists():
        text, sections = read(path)
    if section is not None and section not in sections:
        known = ", ".join(name for name in sections if name != COMMON) or "it has none"
        raise ConfigError("section", section, f"a section of {path}: {known}")
    variables = {key: environ[variable(key)] for key in KEYS if key != SECRET and environ.get(variable(key))}
    found = [Source(variables, lambda key: ("", ""))]
    if section is not None:
        found.insert(0, from_section(path, text, section, sections, warn))
    if COMMON in sections:
        found.append(from_section(path, text, COMMON, sections, warn))
    return found


def from_section(
    path: Path, text: str, section: str, sections: Mapping[str, Mapping[str, str]], warn: Callable[[str], None]
) -> Source:
    """Return a section as a source; unknown keys get a warning."""

    def where(key: str) -> tuple[str, str]:
        return section, f"{path}, line {line_of(text, section, key)}"

    values = sections[section]
    for key in values:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            warn(f"{where(key)[1]}: unknown key {key!r}{hint}")
    return Source({key: value for key, value in values.items() if key in KEYS}, where)


def config_path(environ: Mapping[str, str]) -> Path:
    """Return where the configuration file is."""
    folder = environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / FILE_NAME


def read(path: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the file, and its sections. Raises ConfigError, which never quotes a line: it may have the password."""
    parser = configparser.RawConfigParser(default_section="")
    try:
        text = path.read_text(encoding="utf-8")
        parser.read_string(text)
    except configparser.ParsingError as error:
        # One that misses a section tells its line otherwise.
        line = error.lineno if isinstance(error, configparser.MissingSectionHeaderError) else error.errors[0][0]
        expected = "an INI file: [SECTION], then KEY = VALUE"
        raise ConfigError("line", line, expected, file=str(path)) from None
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        what = "key" if isinstance(error, configparser.DuplicateOptionError) else "section"
        raise ConfigError("line", error.lineno, f"each {what} once", file=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("file", path.name, f"a file that can be read ({error})", file=str(path)) from error
    return text, {name: dict(parser.items(name)) for name in parser.sections()}


def line_of(text: str, section: str, key: str) -> int:
    """Return the number of the line with a key in a section."""
    current = None
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\[(.+)\]", line)
        if header:
            current = header[1]
        elif current == section and re.split("[=:]", line)[0].strip().lower() == key:
            return number
    return 0


# Values


def fill(options: argparse.Namespace, command: argparse.ArgumentParser, sources: Sequence[Source]) -> None:
    """Fill in what is open. Raises ConfigError or InvalidValue."""
    fill_trust(options, sources)
    for key in KEYS:
        if key in TRUST or getattr(options, key, None) is not UNSET:
            continue
        source = next((source for source in sources if key in source.values), None)
        if source is not None:
            setattr(options, key, convert(command, key, source))


def fill_trust(options: argparse.Namespace, sources: Sequence[Source]) -> None:
    """Fill in whom to trust: as the first one says that says anything; what it says counts as a whole."""
    if any(getattr(options, dest_of(key), UNSET) is not UNSET for key in TRUST):
        return
    for source in sources:
        fingerprint, cafile = source.values.get("fingerprint"), source.values.get("cafile")
        is_insecure = not parse_boolean(source, "secure")
        # The certificate itself is stricter than authorities that may vouch for others, too.
        if fingerprint and takes_fingerprint(options):
            options.fingerprint = fingerprint
            return
        if (cafile or is_insecure) and hasattr(options, "cafile"):
            options.cafile, options.insecure = cafile, is_insecure
            return


def takes_fingerprint(options: argparse.Namespace) -> bool:
    """May the server be known by its certificate? An engine may not, which a restore without a URL asks."""
    return hasattr(options, "fingerprint") and getattr(options, "url", "") is not None


def parse_boolean(source: Source, key: str) -> bool:
    """Return what 1, yes, true, on and their opposites mean; yes where there is none."""
    text = source.values.get(key, "yes").lower()
    if text not in BOOLEANS:
        raise source.mistake(key, "yes or no")
    return BOOLEANS[text]


def convert(command: argparse.ArgumentParser, key: str, source: Source) -> Any:
    """Return a value as the option of its key takes it."""
    text = source.values[key]
    action = next((action for action in command._actions if action.dest == key), None)
    if action is None:
        return text
    if action.choices is not None and text not in action.choices:
        raise source.mistake(key, f"one of {', '.join(map(str, action.choices))}")
    kind: Any = action.type or str
    try:
        return kind(text)
    except argparse.ArgumentTypeError as error:
        raise source.mistake(key, f"what --{key.replace('_', '-')} takes: {error}") from None
    except ValueError:
        raise source.mistake(key, "a number") from None
