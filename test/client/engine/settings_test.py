"""What wins: the command line, the configuration file, the environment, the defaults; and mistakes in them."""

from __future__ import annotations

import pytest

from docs import pages
from ovirt_imageio.client import options as arguments
from ovirt_imageio.client.defaults import config_path
from ovirt_imageio.client.engine import settings

DISK_ID = "0d4b4dcd-6f41-4a4e-a6a2-6f9f0a3f9c11"

TEXT = """\
[lab]
engine_url = https://lab.example.com/ovirt-engine/api
username = admin@internal
password = 100%secret
cafile = lab.pem
secure = No
disk_timeout = 300
log_file = img.log
log_level = info
description = From the lab
unknown = ignored
"""


@pytest.fixture
def parse(tmp_path):
    (tmp_path / "ovirt-img.conf").write_text(TEXT)

    def parse(*words, **environ):
        parser = arguments.make_parser()
        variables = {"XDG_CONFIG_HOME": str(tmp_path), **environ}
        return arguments.parse(parser, ["download-disk", *words, DISK_ID, "copy"], variables)

    return parse


NAMED = ("--engine-url", "https://engine/", "--username", "me")


def test_defaults(parse):
    options = parse(*NAMED, OVIRT_IMG_CA="system.pem")
    assert (options.engine_url, options.username, options.cafile) == ("https://engine", "me", "system.pem")
    assert (options.insecure, options.disk_timeout, options.password) == (False, 120, None)
    assert (options.log_file, options.log_level, options.description) == (None, "warning", "Uploaded by ovirt-img")


def test_section(parse):
    options = parse("-c", "lab", OVIRT_IMG_CA="system.pem")
    assert (options.engine_url, options.username) == ("https://lab.example.com", "admin@internal")
    assert (options.cafile, options.insecure, options.disk_timeout) == ("lab.pem", True, 300)
    assert (options.log_file, options.log_level, options.description) == ("img.log", "info", "From the lab")
    assert options.password == "100%secret"


def test_command_line_wins(parse):
    options = parse("-c", "lab", *NAMED, "--cafile", "mine.pem", "--log-level", "error", "-d", "Mine")
    assert (options.engine_url, options.username, options.cafile) == ("https://engine", "me", "mine.pem")
    assert (options.insecure, options.log_level, options.description) == (False, "error", "Mine")


def test_section_of_the_docs(parse, tmp_path):
    page = "docs/client.md"
    [block] = [block for block in pages.blocks(page, pages.read(page)) if block.language == "ini"]
    (tmp_path / "ovirt-img.conf").write_text(block.text)
    options = parse("-c", "lab")
    assert (options.engine_url, options.username) == ("https://engine.example.com", "admin@internal")
    assert (options.password, options.insecure) == ("secret", False)


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_path({"XDG_CONFIG_HOME": ""}) == tmp_path / ".config" / "ovirt-img.conf"


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        ((), None, "required: --engine-url, --username"),
        (("-c", "lab"), ("username = admin@internal\n", ""), "required: --username"),
        (("-c", "prod", *NAMED), None, "section 'prod': expected a section of"),
        (("-c", "lab"), ("= No", "= maybe"), "[lab] secure = 'maybe' in {path}, line 6: expected yes or no"),
        (("-c", "lab"), ("= 300", "= soon"), "Invalid disk_timeout 'soon'"),
        (
            ("-c", "lab"),
            ("= info", "= loud"),
            "log_level = 'loud' in {path}, line 9: expected one of debug, info",
        ),
        (("-c", "lab"), ("[lab]", ""), "line 2 in {path}: expected an INI file"),
        (("--engine-url", "https://me:s3cr3t@engine", "--username", "me"), None, "without user and password"),
        (("--engine-url", "s3cr3t@engine", "--username", "me"), None, "expected like https://"),
    ],
)
def test_mistake(parse, tmp_path, words, change, message, capsys):
    (tmp_path / "ovirt-img.conf").write_text(TEXT.replace(*change) if change else TEXT)
    with pytest.raises(SystemExit) as end:
        parse(*words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert message.replace("{path}", str(tmp_path / "ovirt-img.conf")) in said
    assert "s3cr3t" not in said
    assert "100%secret" not in said


def test_config_cannot_be_read(parse, tmp_path, capsys):
    (tmp_path / "ovirt-img.conf").unlink()
    with pytest.raises(SystemExit):
        parse("-c", "lab")
    assert "No such file" in capsys.readouterr().err


def test_password_file(parse, tmp_path, caplog):
    path = tmp_path / "password"
    path.write_text(" pass word\r\n\n")
    path.chmod(0o600)
    options = parse("-c", "lab", "--password-file", str(path))
    assert settings.read_password(options) == " pass word"
    assert not caplog.records
    path.chmod(0o640)
    assert settings.read_password(options) == " pass word"
    assert f"Others may read the password in {path}" in caplog.text


def test_password_of_config(parse, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "ovirt-img.conf").chmod(0o644)
    assert settings.read_password(parse("-c", "lab")) == "100%secret"
    assert "Others may read the password in" in caplog.text
    assert "100%secret" not in caplog.text


def test_password_is_asked_for(parse):
    asked = []
    assert settings.read_password(parse(*NAMED), lambda text: asked.append(text) or "typed") == "typed"
    assert asked == ["Password of me: "]


def test_nobody_is_there_to_ask(parse):
    def ask(text):
        raise EOFError

    with pytest.raises(settings.InvalidValue, match="--password-file"):
        settings.read_password(parse(*NAMED), ask)
