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
from ovirt_imageio.service.journal import JournalHandler, is_behind

__all__ = ["log_files", "set_levels", "start", "writes_to_stderr"]

STDERR = 2

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
    if is_behind(STDERR, environ):
        replace_streams(sections)
    # systemd sets this when what we print goes to the journal.
    if "JOURNAL_STREAM" in environ and is_default(sections):
        logging.getLogger().addHandler(JournalHandler())


def replace_streams(sections: Sections) -> None:
    """Send what goes to standard error, and thereby to the journal, to the journal itself: lines get their fields."""
    for logger in configured_loggers(sections):
        for handler in logger.handlers[:]:
            if is_stderr(handler):
                direct = JournalHandler()
                direct.setLevel(handler.level)
                logger.addHandler(direct)
                logger.removeHandler(handler)


def is_default(sections: Sections) -> bool:
    """Return True if it is not configured where the log goes."""
    default = Config().logging
    return all(sections[name] == default[name] for name in ("handlers", "handler_logfile")) and (
        sections["logger_root"]["handlers"] == default["logger_root"]["handlers"]
    )


def set_levels(sections: Sections) -> None:
    """Change the level of every configured logger; handlers stay as they are."""
    for name, logger in zip(names_of_loggers(sections), configured_loggers(sections)):
        level = sections[f"logger_{name}"].get("level")
        if level is not None:
            logger.setLevel(level)


def names_of_loggers(sections: Sections) -> list[str]:
    return [name.strip() for name in str(sections["loggers"]["keys"]).split(",")]


def configured_loggers(sections: Sections) -> list[logging.Logger]:
    names = names_of_loggers(sections)
    return [logging.getLogger(None if name == "root" else sections[f"logger_{name}"].get("qualname")) for name in names]


def writes_to_stderr() -> bool:
    """Return True if the log is seen where our standard error is."""
    handlers = logging.getLogger().handlers
    return any(is_stderr(handler) or isinstance(handler, JournalHandler) for handler in handlers)


def is_stderr(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr


def log_files() -> list[str]:
    """Return the files that the root logger writes to."""
    handlers = logging.getLogger().handlers
    return [str(handler.baseFilename) for handler in handlers if isinstance(handler, logging.FileHandler)]
