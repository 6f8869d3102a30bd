"""Where log lines go: as the configuration says, and to the journal when it says nothing.

Knows the logging library and its sections in the configuration; knows nothing of what is logged.
"""

from __future__ import annotations

import configparser
import logging
import logging.config
import os
import sys
from collections.abc import Mapping
from typing import Any

from ovirt_imageio.config import Config
from ovirt_imageio.errors import ConfigError

__all__ = ["log_files", "set_levels", "start", "writes_to_stderr"]

Sections = Mapping[str, Mapping[str, Any]]


def start(sections: Sections, environ: Mapping[str, str] = os.environ) -> None:
    """Open the log. Raises ConfigError with the reason if that does not work."""
    parser = configparser.RawConfigParser()
    parser.read_dict(sections)
    try:
        logging.config.fileConfig(parser, disable_existing_loggers=False)
    except Exception as error:  # The values are Python expressions: everything may happen.
        expected = f"log handlers that can be started ({type(error).__name__}: {error})"
        raise ConfigError("keys", sections["handlers"]["keys"], expected, "handlers") from error
    # systemd sets this when what we print goes to the journal.
    if "JOURNAL_STREAM" in environ and is_default(sections):
        add_journal()


def is_default(sections: Sections) -> bool:
    """Return True if it is not configured where the log goes."""
    default = Config().logging
    return all(sections[name] == default[name] for name in ("handlers", "handler_logfile")) and (
        sections["logger_root"]["handlers"] == default["logger_root"]["handlers"]
    )


def add_journal() -> None:
    """Log to the journal as well, if systemd-python is installed."""
    try:
        from systemd import journal
    except ImportError:
        return
    logging.getLogger().addHandler(journal.JournalHandler(SYSLOG_IDENTIFIER="ovirt-imageio"))


def set_levels(sections: Sections) -> None:
    """Change the level of every configured logger; handlers stay as they are."""
    for name in map(str.strip, str(sections["loggers"]["keys"]).split(",")):
        section = sections[f"logger_{name}"]
        if "level" in section:
            logging.getLogger(None if name == "root" else section.get("qualname")).setLevel(section["level"])


def writes_to_stderr() -> bool:
    """Return True if the log is seen on our standard error."""
    handlers = logging.getLogger().handlers
    return any(isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr for handler in handlers)


def log_files() -> list[str]:
    """Return the files that the root logger writes to."""
    handlers = logging.getLogger().handlers
    return [str(handler.baseFilename) for handler in handlers if isinstance(handler, logging.FileHandler)]
