"""What wins, for all commands; mistakes are told with their place. For the engine see engine/settings_test.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ovirt_imageio.client import defaults, options

TEXT = """\
# For all commands.
[DEFAULT]
cafile = common.pem
max_workers = 2
retries = 1
output = json

[lab]
fingerprint = ab:cd
max_workers = 3
bandwith = 10m
"""


@pytest.fixture
def parse(tmp_path):
    """Parse; return the arguments, and the warnings."""
    (tmp_path / "ovirt-img.conf").write_text(TEXT)
    warnings = []

    def parse(*words, **environ):
        parser = options.make_parser()
        found = options.parse(parser, words, {"XDG_CONFIG_HOME": str(tmp_path), **environ}, warnings.append)
        found.warnings = warnings
        return found

    return parse


COPY = ("download", "URL", "FILE")


def test_common_section(parse):
    found = parse(*COPY)
    assert (found.cafile, found.fingerprint, found.insecure) == ("common.pem", None, False)
    assert (found.max_workers, found.retries, found.output, found.bandwidth) == (2, 1, "json", None)
    assert (found.log_level, found.warnings) == ("warning", [])


def test_environment_wins_over_the_common_section(parse):
    found = parse(*COPY, OVIRT_IMG_MAX_WORKERS="5", OVIRT_IMG_BANDWIDTH="1m", OVIRT_IMG_SECURE="no")
    assert (found.max_workers, found.bandwidth, found.retries) == (5, 1024**2, 1)
    assert (found.cafile, found.insecure) == (None, True)


def test_named_section_wins_over_the_environment(parse, tmp_path):
    found = parse(*COPY, "-c", "lab", OVIRT_IMG_MAX_WORKERS="5", OVIRT_IMG_RETRIES="7", OVIRT_IMG_CA="env.pem")
    assert (found.max_workers, found.retries, found.output) == (3, 7, "json")
    # Two that say whom to trust are not mixed.
    assert (found.cafile, found.fingerprint) == (None, "ab:cd")
    file = tmp_path / "ovirt-img.conf"
    assert found.warnings == [f"{file}, line 11: unknown key 'bandwith'; did you mean bandwidth?"]


def test_command_line_wins(parse):
    words = ("--cafile", "mine.pem", "--max-workers", "4", "-o", "text", "--log-level", "debug")
    found = parse(*COPY, "-c", "lab", *words, OVIRT_IMG_LOG_LEVEL="error")
    assert (found.cafile, found.fingerprint, found.insecure) == ("mine.pem", None, False)
    assert (found.max_workers, found.output, found.log_level) == (4, "text", "debug")


def test_what_a_command_does_not_know(parse):
    found = parse("info", "FILE")
    assert found.output == "json"
    assert "cafile" not in found
    assert "max_workers" not in found
    assert "fingerprint" not in found


def test_an_engine_is_not_known_by_its_certificate(parse):
    """A restore through one is trusted as if the key was not there."""
    engine = ("--engine-url", "https://engine.example.com", "--username", "admin@internal")
    found = parse("restore", "-c", "lab", *engine, "-s", "data", "DIR")
    assert (found.cafile, found.fingerprint) == ("common.pem", None)
    found = parse("restore", "-c", "lab", "--url", "URL", "DIR")
    assert (found.cafile, found.fingerprint) == (None, "ab:cd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("retries = 1", "retries = often"), "[DEFAULT] retries = 'often' in {path}, line 5: expected a number"),
        (("workers = 2", "workers = 9"), "line 4: expected what --max-workers takes: '9' is not a number from 1 to 8"),
        (("output = json", "output = xml"), "line 6: expected one of text, json"),
        (("= common.pem", "= common.pem\nsecure = perhaps"), "line 4: expected yes or no"),
        (("cafile = common.pem", "cafile"), "line 3 in {path}: expected an INI file: [SECTION], then KEY = VALUE"),
        (("max_workers = 2", "cafile = x"), "line 4 in {path}: expected each key once"),
        (("[lab]", "[DEFAULT]"), "line 8 in {path}: expected each section once"),
        (("# For", "password = 100%secret\n# For"), "line 1 in {path}: expected an INI file"),
    ],
)
def test_mistake(parse, tmp_path, change, message, capsys):
    path = tmp_path / "ovirt-img.conf"
    path.write_text(TEXT.replace(*change, 1))
    with pytest.raises(SystemExit, match="2"):
        parse(*COPY)
    said = capsys.readouterr().err
    assert message.replace("{path}", str(path)) in said
    assert "100%secret" not in said


def test_mistake_in_the_environment(parse, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(*COPY, OVIRT_IMG_BANDWIDTH="fast")
    assert "Invalid OVIRT_IMG_BANDWIDTH 'fast': expected what --bandwidth takes: " in capsys.readouterr().err


def test_section_that_is_not_there(parse, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(*COPY, "-c", "prod")
    assert "section 'prod': expected a section of" in capsys.readouterr().err


def test_file_that_is_not_text(parse, tmp_path, capsys):
    (tmp_path / "ovirt-img.conf").write_bytes(b"[DEFAULT]\ncafile = \xff\n")
    with pytest.raises(SystemExit, match="2"):
        parse(*COPY)
    assert "expected a file that can be read" in capsys.readouterr().err


def test_no_file(parse, tmp_path):
    (tmp_path / "ovirt-img.conf").unlink()
    assert parse(*COPY).max_workers == 4


def test_password_is_not_in_the_environment():
    assert "password" in defaults.KEYS
    source = defaults.find_sources(None, {"XDG_CONFIG_HOME": "/gone", "OVIRT_IMG_PASSWORD": "secret"}, print)
    assert [dict(item.values) for item in source] == [{}]


def test_every_key_is_documented():
    text = options.EPILOG
    assert all(key in text for key in defaults.KEYS)
    assert all(defaults.variable(key) in text for key in ("cafile", "fingerprint"))


def test_program(tmp_path):
    """A warning is a line on standard error, and the command goes on."""
    (tmp_path / "ovirt-img.conf").write_text("[DEFAULT]\nretrys = 1\n")
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "ovirt_imageio.client.cli", "info", "/gone"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.stderr == (
        f"ovirt-img: {tmp_path}/ovirt-img.conf, line 2: unknown key 'retrys'; did you mean retries?\n"
        "ovirt-img: Cannot open the image: there is no /gone\n"
    )
