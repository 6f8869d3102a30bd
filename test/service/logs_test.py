"""Logging starts as configured."""

import logging
import os

import pytest

from ovirt_imageio.config import Config
from ovirt_imageio.errors import ConfigError
from ovirt_imageio.service import logs


@pytest.fixture
def sections(tmp_path):
    sections = {name: dict(options) for name, options in Config().logging.items()}
    sections["handler_logfile"]["args"] = repr((str(tmp_path / "daemon.log"),))
    return sections


def test_log_file(sections, tmp_path):
    logs.start(sections, {})
    logging.getLogger("http").info("OPEN connection=1")
    logging.getLogger("http").debug("not this")
    [line] = (tmp_path / "daemon.log").read_text().splitlines()
    assert line.endswith("INFO    (MainThread) [http] OPEN connection=1")
    assert logs.log_files() == [str(tmp_path / "daemon.log")]


def test_loggers_made_before_still_work(sections, tmp_path):
    early = logging.getLogger("early")
    logs.start(sections, {})
    early.warning("heard")
    assert "heard" in (tmp_path / "daemon.log").read_text()


def test_levels_change(sections, tmp_path):
    logs.start(sections, {})
    sections["logger_root"]["level"] = "DEBUG"
    logs.set_levels(sections)
    logging.getLogger("http").debug("now")
    assert "now" in (tmp_path / "daemon.log").read_text()


def test_level_of_a_named_logger(sections):
    sections["loggers"]["keys"] = "root, nbd"
    sections["logger_nbd"] = {"level": "DEBUG", "handlers": "", "qualname": "test.nbd", "propagate": 1}
    logs.start(sections, {})
    assert logging.getLogger("test.nbd").level == logging.DEBUG
    sections["logger_nbd"]["level"] = "ERROR"
    logs.set_levels(sections)
    assert logging.getLogger("test.nbd").level == logging.ERROR


def test_logger_without_level(sections):
    sections["loggers"]["keys"] = "root, nbd"
    sections["logger_nbd"] = {"handlers": "", "qualname": "test.nbd"}
    logs.start(sections, {})
    before = logging.getLogger("test.nbd").level
    logs.set_levels(sections)
    assert logging.getLogger("test.nbd").level == before


@pytest.mark.parametrize("args", ['("/nowhere/daemon.log",)', "(", "no_such_name"])
def test_broken_handler(sections, args):
    sections["handler_logfile"]["args"] = args
    with pytest.raises(
        ConfigError, match=r"\[handlers\] keys = 'logfile': expected log handlers that can be started \("
    ):
        logs.start(sections, {})


@pytest.fixture
def journal(monkeypatch):
    """The lines that a journal would get."""
    lines = []

    class Journal(logging.Handler):
        def emit(self, record):
            lines.append(self.format(record))

    monkeypatch.setattr(logs, "JournalHandler", Journal)
    return lines


def under_systemd(sections, monkeypatch):
    monkeypatch.setattr(logs, "is_default", lambda _: True)
    logs.start(sections, {"JOURNAL_STREAM": "8:1"})
    logging.getLogger("server").info("ready")


def test_journal(sections, journal, monkeypatch):
    under_systemd(sections, monkeypatch)
    assert journal == ["ready"]


def test_standard_error_that_is_the_journal(sections, journal, monkeypatch):
    """Lines go there by themselves, once, without the time that the journal knows."""
    status = os.fstat(2)
    sections["handlers"]["keys"] = sections["logger_root"]["handlers"] = "stderr"
    logs.start(sections, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    logging.getLogger("server").info("ready")
    assert journal == ["ready"]


def test_standard_error_that_is_not_the_journal(sections, journal):
    sections["handlers"]["keys"] = sections["logger_root"]["handlers"] = "stderr"
    logs.start(sections, {"JOURNAL_STREAM": "8:1"})
    logging.getLogger("server").info("ready")
    assert journal == []
    assert logs.writes_to_stderr()


def test_configured_log_keeps_out_of_the_journal(sections, journal):
    logs.start(sections, {"JOURNAL_STREAM": "8:1"})
    logging.getLogger("server").info("ready")
    assert journal == []


def test_no_journal_without_systemd(sections, journal, monkeypatch):
    monkeypatch.setattr(logs, "is_default", lambda _: True)
    logs.start(sections, {})
    logging.getLogger("server").info("ready")
    assert journal == []


def test_what_is_default(sections):
    default = Config().logging
    assert logs.is_default(default)
    assert logs.is_default({**default, "logger_root": {**default["logger_root"], "level": "DEBUG"}})
    assert not logs.is_default({**default, "logger_root": {**default["logger_root"], "handlers": "stderr"}})
    assert not logs.is_default(sections)
