"""The keys, their defaults, and the shape in which they are shown."""

import dataclasses
import json
from pathlib import Path

import pytest

from ovirt_imageio.config import Config, sections, to_dict

# What every deployed tool may rely on: sections, keys, defaults.
PUBLISHED = {
    "daemon": {
        "poll_interval": 1.0,
        "max_connections": 8,
        "inactivity_timeout": 60,
        "run_dir": "/run/ovirt-imageio",
        "drop_privileges": True,
        "user_name": "ovirtimg",
        "group_name": "ovirtimg",
        "systemd_enable": True,
    },
    "tls": {"enable": True, "key_file": "", "cert_file": "", "ca_file": "", "enable_tls1_1": False, "kernel": "auto"},
    "backend_file": {"buffer_size": 8388608},
    "backend_http": {"ca_file": "", "buffer_size": 8388608},
    "backend_nbd": {"buffer_size": 8388608},
    "remote": {"host": "::", "port": 54322},
    "local": {"enable": True, "socket": "\0/org/ovirt/imageio"},
    "control": {
        "enable": True,
        "transport": "unix",
        "socket": "/run/ovirt-imageio/sock",
        "port": 54324,
        "prefer_ipv4": True,
        "remove_timeout": 60,
    },
    "profile": {"filename": "/run/ovirt-imageio/profile"},
    "loggers": {"keys": "root"},
    "handlers": {"keys": "logfile"},
    "formatters": {"keys": "long"},
    "logger_root": {"level": "INFO", "handlers": "logfile", "propagate": 0},
    "handler_logfile": {
        "class": "logging.handlers.RotatingFileHandler",
        "args": '("/var/log/ovirt-imageio/daemon.log",)',
        "kwargs": '{"maxBytes": 20971520, "backupCount": 10}',
        "level": "DEBUG",
        "formatter": "long",
    },
    "handler_stderr": {"class": "logging.StreamHandler", "args": "()", "level": "DEBUG", "formatter": "long"},
    "formatter_long": {"format": "%(asctime)s %(levelname)-7s (%(threadName)s) [%(name)s] %(message)s"},
}


@pytest.mark.parametrize("section", PUBLISHED)
def test_published_defaults(section):
    shown = to_dict(Config())[section]
    wanted = PUBLISHED[section]
    assert {key: shown.get(key) for key in wanted} == wanted
    assert [type(shown[key]) for key in wanted] == [type(value) for value in wanted.values()]


def test_shown_as_json():
    assert json.loads(json.dumps(to_dict(Config())))["local"]["socket"] == "\0/org/ovirt/imageio"


def test_every_default_obeys_its_own_limits():
    """Written to a file and read again, a default is itself."""
    for name, options in to_dict(Config()).items():
        parsers = sections.find_parsers(name)
        for key, value in options.items():
            assert parsers[key](str(value)) == value, (name, key)


def documented(page):
    """Return the defaults that the tables of a page tell, by section and key."""
    found, section = {}, ""
    for line in page.splitlines():
        cells = [cell.strip(" `[]") for cell in line.split("|")[1:-1]]
        if line.startswith("## "):
            section = line.strip("#` []")
        elif line.startswith(("| `[", "| | `")):
            section = cells[0] or section
            found[section, cells[1]] = cells[2]
        elif line.startswith("| `") and section:
            found[section, cells[0]] = cells[1]
    return found


def test_every_key_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    told = documented(page)
    known = {(name, key): value for name, options in to_dict(Config()).items() for key, value in options.items()}
    told = {place: text for place, text in told.items() if place[0] != "Files"}
    assert set(told) == set(known)
    for (name, key), text in told.items():
        assert sections.find_parsers(name)[key](text.replace("@", "\0")) == known[name, key], (name, key)


def test_more_logging_sections_are_known():
    for name in ("logger_mine", "handler_mine", "formatter_mine"):
        assert sections.find_parsers(name)


@pytest.mark.parametrize("name", ["remotee", "logging", "", "DEFAULT", "warnings"])
def test_unknown_section(name):
    assert sections.find_parsers(name) is None


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().remote.port = 1


def test_authorities_of_origins():
    assert Config().origin_ca == ("tls", "")
    assert Config(tls=sections.TLS(ca_file="/a")).origin_ca == ("tls", "/a")
    http = sections.BackendHttp(ca_file="/b")
    assert Config(tls=sections.TLS(ca_file="/a"), backend_http=http).origin_ca == ("backend_http", "/b")
