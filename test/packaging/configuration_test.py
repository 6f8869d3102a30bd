"""The files of conf/: they load without a warning, and the annotated defaults are the defaults."""

from __future__ import annotations

import configparser
import re

import pytest
from tools import source

from ovirt_imageio import config

CONF = source.ROOT / "conf"
DROP_INS = sorted(CONF.glob("*.conf"))
# What @DIR@ becomes.
FOLDER = "/home/me/run"


def load(tmp_path, *paths):
    """Load these files, as if they were installed."""
    (tmp_path / "conf.d").mkdir()
    for path in paths:
        text = path.read_text().replace("@DIR@", FOLDER)
        (tmp_path / "conf.d" / f"{path.stem}.conf").write_text(text)
    return config.load(tmp_path, tmp_path / "no-vendor")


def read(path):
    parser = configparser.RawConfigParser()
    parser.read_string(path.read_text())
    return parser


def test_readme_has_every_key(tmp_path):
    readme = read(CONF / "README")
    documented = {(section, key) for section in readme.sections() for key in readme[section]}
    known = {(section, key) for section, keys in config.to_dict(config.Config()).items() for key in keys}
    assert documented == known


def test_readme_has_the_defaults(tmp_path):
    assert config.to_dict(load(tmp_path, CONF / "README")) == config.to_dict(config.Config())


@pytest.mark.parametrize("path", DROP_INS, ids=lambda path: path.name)
def test_drop_in_is_understood(tmp_path, path):
    assert load(tmp_path, path).warnings == ()


def test_engine_role(tmp_path):
    engine = load(tmp_path, CONF / "50-engine.conf")
    config.check(engine)
    assert (engine.remote.port, engine.local.enable) == (54323, False)
    assert (engine.control.transport, engine.control.port) == ("tcp", 54324)


def test_host_role(tmp_path):
    host = load(tmp_path, CONF / "60-vdsm.conf")
    config.check(host)
    assert (host.remote.port, host.local.enable, host.control.transport) == (54322, True, "unix")


@pytest.mark.parametrize("role", ["50-engine.conf", "60-vdsm.conf"])
def test_development_needs_nothing_installed(tmp_path, role):
    development = load(tmp_path, CONF / role, CONF / "99-development.conf")
    assert not development.daemon.drop_privileges
    # What is written, and what is bound, stays in the folder of the developer.
    for path in (development.daemon.run_dir, development.control.socket, development.profile.filename):
        assert path.startswith(FOLDER)


def test_only_known_placeholders():
    for path in DROP_INS:
        assert set(re.findall(r"@\w+@", path.read_text())) <= {"@DIR@"}, path
