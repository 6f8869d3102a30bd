"""Manual pages: complete, and without a complaint of the program that shows them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
from tools import source

from ovirt_imageio.client import options
from ovirt_imageio.terminal.manual import escaped, manual, sections, summary
from ovirt_imageio.terminal.tree import describe

PAGES = ("man1/ovirt-img.1", "man8/ovirt-imageio.8", "man8/ovirt-imageioctl.8")


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    folder = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, source.ROOT / "data/describe.py", folder], check=True)
    return folder


@pytest.mark.skipif(not shutil.which("man") or not shutil.which("groff"), reason="man or groff is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_page(share, page):
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", share / "man" / page]
    environ = {"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    # As a printer makes letters bold, or, on Debian 13, as a terminal does.
    shown = re.sub("(.)\b\\1|\x1b\\[[0-9]*m", "\\1", done.stdout)
    for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT", "SEE ALSO"):
        assert re.search(rf"^{title}", shown, re.MULTILINE), title


def test_everything_is_in_it():
    program = describe(options.make_parser())
    text = manual(program, 1, "3.0.0", ("ovirt-imageio(8)",)).replace("\\-", "-")
    for command in program.commands:
        assert f".SS {command.name}\n" in text
        for option in command.options:
            assert f"\\fB{option.flags[-1]}\\fR" in text
            assert option.help in text
    # Once, and not for each command.
    assert text.count("OVIRT_IMG_FINGERPRINT ") == 1
    assert text.count("configuration file") >= 1
    assert "\\fBovirt-imageio\\fR(8)" in text


@pytest.mark.parametrize(
    ("about", "expected"),
    [("Move disks over HTTPS. And more.", "move disks over HTTPS"), ("Do it.", "do it"), ("", "")],
)
def test_summary(about, expected):
    assert summary(about) == expected


def test_sections():
    assert sections("before\n\nexit status:\n  0  done\n\nenvironment:\n  A  b\n") == {
        "notes": "before",
        "exit status": "  0  done",
        "environment": "  A  b",
    }
    assert sections("") == {}


@pytest.mark.parametrize(
    ("text", "shown"), [(".so /etc/passwd", r"\&.so /etc/passwd"), ("'x", r"\&'x"), (r"a\b-c", r"a\eb\-c")]
)
def test_nothing_is_a_request(text, shown):
    assert escaped(text) == shown
