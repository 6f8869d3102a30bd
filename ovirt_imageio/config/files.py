"""Read the configuration from its files, and merge them.

    /usr/lib/ovirt-imageio/conf.d/50-vendor.conf  ┐ sorted by base name:
    /etc/ovirt-imageio/conf.d/60-vdsm.conf        │ later files override    ──>  Config
    /etc/ovirt-imageio/conf.d/99-user.conf        ┘ single keys of earlier ones

Knows files and the INI format; which keys there are is told by `sections`.
"""

from __future__ import annotations

import configparser
import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Union

from ovirt_imageio.config.kinds import Value
from ovirt_imageio.config.sections import Config, find_parsers, section_names
from ovirt_imageio.errors import ConfigError

__all__ = ["CONF_DIR", "VENDOR_DIR", "check", "find_contradictions", "load", "read"]

# Where the administrator, vdsm and engine-setup put their files: in conf.d/ below it.
CONF_DIR = "/etc/ovirt-imageio"
# Where packages put theirs.
VENDOR_DIR = "/usr/lib/ovirt-imageio/conf.d"

# What older versions understood; a warning tells what became of it.
REMOVED = {
    ("daemon", "buffer_size"): "how much moves at once is chosen to fit the machine",
    ("daemon", "auth_timeout"): "[remote] idle_timeout took its place",
}

# What the logging library does not do without.
REQUIRED = {"formatter": (), "handler": ("class",), "logger": ("handlers", "qualname")}

Logging = Mapping[str, Mapping[str, Value]]

AnyPath = Union[str, "os.PathLike[str]"]


class Option(NamedTuple):
    """One key of a file, and what it is set to."""

    file: str
    section: str
    key: str
    text: str


def load(conf_dir: AnyPath = CONF_DIR, vendor_dir: AnyPath = VENDOR_DIR) -> Config:
    """Read and merge the files of `conf_dir`/conf.d and of vendor_dir.

    Raises ConfigError for the first mistake, and when conf_dir holds no file.
    """
    config, mistakes = read(conf_dir, vendor_dir)
    if mistakes:
        raise mistakes[0]
    return config


def read(conf_dir: AnyPath = CONF_DIR, vendor_dir: AnyPath = VENDOR_DIR) -> tuple[Config, list[ConfigError]]:
    """Return what load() does, without what cannot be used, and every mistake.

    Raises ConfigError when conf_dir holds no file.
    """
    values: dict[str, dict[str, Value]] = {}
    warnings: list[str] = []
    mistakes: list[ConfigError] = []
    for path in find_files(Path(conf_dir), Path(vendor_dir)):
        try:
            sections = read_file(path)
        except ConfigError as error:
            mistakes.append(error)
            continue
        for section, options in sections.items():
            parsers = find_parsers(section)
            if parsers is None:
                warnings.append(f"Unknown section [{section}] in {path}{_nearest(section, section_names())}")
                continue
            for option in options:
                if option.key not in parsers:
                    warnings.append(_unknown_key(option, list(parsers)))
                    continue
                try:
                    values.setdefault(section, {})[option.key] = parsers[option.key](option.text)
                except ValueError as error:
                    mistakes.append(ConfigError(option.key, option.text, str(error), option.section, option.file))
    config = _build(values)
    return dataclasses.replace(config, warnings=(*warnings, *_unused_sections(config.logging))), mistakes


def find_files(conf_dir: Path, vendor_dir: Path) -> list[Path]:
    """Return the files in the order in which they are read; among equal names the administrator's comes last."""
    own = _drop_ins(conf_dir / "conf.d")
    if not own:
        raise ConfigError("configuration directory", str(conf_dir), "at least one file conf.d/*.conf in it")
    ranked = [(path.name, 0, path) for path in _drop_ins(vendor_dir)] + [(path.name, 1, path) for path in own]
    return [path for _, _, path in sorted(ranked)]


def _drop_ins(folder: Path) -> list[Path]:
    """Return the configuration files in a folder; none if there is no folder."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError("folder", str(folder), f"a folder that can be read: {error.strerror}") from None
    return [folder / name for name in names if name.endswith(".conf")]


def read_file(path: Path) -> dict[str, list[Option]]:
    """Return the sections of one file with their options. Raises ConfigError."""
    # There is no section of defaults here: its name cannot be written in a file.
    parser = configparser.RawConfigParser(default_section="\0")
    try:
        text = path.read_text(encoding="utf-8")
        parser.read_string(text, source=str(path))
    except OSError as error:
        raise ConfigError("file", str(path), f"a file that can be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError("file", str(path), f"text in UTF-8: {error.reason} at byte {error.start}") from None
    except configparser.Error as error:
        raise _syntax_error(error, text, str(path)) from None
    return {
        section: [Option(str(path), section, key, text) for key, text in parser.items(section)]
        for section in parser.sections()
    }


def check(config: Config) -> None:
    """Raise the first of find_contradictions()."""
    for error in find_contradictions(config):
        raise error


def find_contradictions(config: Config) -> Iterator[ConfigError]:
    """Yield what no key can know alone: keys that need others."""
    tls, sessions, control = config.tls, config.sessions, config.control
    if tls.enable:
        for key in ("key_file", "cert_file"):
            if not getattr(tls, key):
                yield ConfigError(key, "", "a file: with TLS, key_file and cert_file are needed, ca_file may be", "tls")
    if control.enable and control.transport == "tcp" and control.port < 0:
        expected = "a port between 0 and 65535 with transport = tcp; -1 means that there is none"
        yield ConfigError("port", str(control.port), expected, "control")
    if sessions.enable and not (sessions.engine_cert_file and sessions.engine_ca_cert_file):
        expected = "engine_cert_file and engine_ca_cert_file to be set when sessions are enabled"
        yield ConfigError("enable", "true", expected, "sessions")
    yield from _logging_contradictions(config.logging)


def _logging_contradictions(logging: Logging) -> Iterator[ConfigError]:
    """Yield sections of the logging library that are not complete, or refer to sections that are not there."""
    for kind, required in REQUIRED.items():
        for name in _names(logging[f"{kind}s"]["keys"]):
            section = f"{kind}_{name}"
            if section not in logging:
                yield ConfigError("keys", name, f"names of sections, but there is no [{section}]", f"{kind}s")
                continue
            for key in required:
                if key not in logging[section] and (section, key) != ("logger_root", "qualname"):
                    yield ConfigError(key, "", "a value: this section needs one", section)
            yield from _lost_references(logging, section)


def _lost_references(logging: Logging, section: str) -> Iterator[ConfigError]:
    for key, others in (("handlers", "handlers"), ("formatter", "formatters")):
        for name in _names(logging[section].get(key, "")):
            if name not in _names(logging[others]["keys"]):
                yield ConfigError(key, name, f"names that [{others}] keys lists", section)


def _names(value: Value) -> list[str]:
    return [name.strip() for name in str(value).split(",") if name.strip()]


def _build(values: dict[str, dict[str, Value]]) -> Config:
    """Return the defaults, changed by what the files set."""
    config = Config()
    logging = {name: dict(options) for name, options in config.logging.items()}
    typed = {}
    for section, options in values.items():
        if hasattr(config, section):
            typed[section] = dataclasses.replace(getattr(config, section), **options)
        else:
            logging.setdefault(section, {}).update(options)
    return dataclasses.replace(config, logging=logging, **typed)


def _unknown_key(option: Option, known: list[str]) -> str:
    removed = REMOVED.get((option.section, option.key))
    hint = f": {removed}" if removed else _nearest(option.key, known)
    return f"Unknown key {option.key!r} in section [{option.section}] of {option.file}{hint}"


def _unused_sections(logging: Logging) -> Iterator[str]:
    """Tell of sections for the logging library that nothing refers to: the name may be wrong."""
    for section in logging:
        kind, _, name = section.partition("_")
        if name and section not in section_names() and name not in _names(logging[f"{kind}s"]["keys"]):
            yield f"Section [{section}] has no effect: [{kind}s] keys does not list {name!r}"


def _nearest(name: str, known: list[str]) -> str:
    """Return advice if a known name looks like what was meant."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {matches[0]!r}?" if matches else ""


def _syntax_error(error: configparser.Error, text: str, file: str) -> ConfigError:
    """Return our error for a file that is not INI."""
    if isinstance(error, configparser.DuplicateOptionError):
        return ConfigError(error.option, f"line {error.lineno}", "the key only once in a file", error.section, file)
    if isinstance(error, configparser.DuplicateSectionError):
        return ConfigError(f"section [{error.section}]", f"line {error.lineno}", "it only once in a file", "", file)
    number = 1
    if isinstance(error, configparser.MissingSectionHeaderError):
        number = error.lineno
    elif isinstance(error, configparser.ParsingError) and error.errors:
        number = error.errors[0][0]
    line = text.splitlines()[number - 1].strip()
    return ConfigError(f"line {number}", line, "a [section], or key = value below one", "", file)
