"""Text of a file becomes a checked value, or an error that says what was expected."""

import os

import pytest

from ovirt_imageio.config import kinds


@pytest.mark.parametrize(
    "text, value", [("true", True), ("YES", True), ("1", True), ("on", True), ("off", False), ("No", False)]
)
def test_switch(text, value):
    assert kinds.parse_switch(text) is value


@pytest.mark.parametrize("text", ["", "maybe", "2", "truee"])
def test_bad_switch(text):
    with pytest.raises(ValueError, match="true, yes, on or 1"):
        kinds.parse_switch(text)


def test_integer_limits():
    assert kinds.parse_integer("0", 0, 65535) == 0
    assert kinds.parse_integer("65535", 0, 65535) == 65535


@pytest.mark.parametrize("text", ["-1", "65536", "", "1.5", "0x10", "eighty"])
def test_bad_integer(text):
    with pytest.raises(ValueError, match="an integer between 0 and 65535"):
        kinds.parse_integer(text, 0, 65535)


def test_seconds():
    assert kinds.parse_seconds("1.5", 0) == 1.5


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1 minute", "90000"])
def test_bad_seconds(text):
    with pytest.raises(ValueError, match="seconds, between 0 and 86400"):
        kinds.parse_seconds(text, 0)


def test_choice_ignores_case():
    assert kinds.parse_choice("TCP", ("unix", "tcp")) == "tcp"


def test_bad_choice():
    with pytest.raises(ValueError, match="unix or tcp"):
        kinds.parse_choice("pigeon", ("unix", "tcp"))


@pytest.mark.parametrize(
    "text", ["\0/org/x", "@/org/x", r"\0/org/x", r'"\0/org/x"', r"\x00/org/x", r"\u0000/org/x", '"@/org/x"']
)
def test_every_spelling_of_an_abstract_socket(text):
    assert kinds.parse_socket(text) == "\0/org/x"


@pytest.mark.parametrize("text", ["/run/sock", ""])
def test_socket_path(text):
    assert kinds.parse_socket(text) == text


@pytest.mark.parametrize("text", ["sock", "./sock", '"sock"'])
def test_relative_socket(text):
    """Clients of the daemon are told the name, and have other current folders."""
    assert kinds.parse_socket(text) == os.path.abspath("sock")


def test_nul_in_the_middle():
    with pytest.raises(ValueError, match="a path, @name"):
        kinds.parse_socket("/run/s\0ck")


@pytest.mark.parametrize(
    "text, path",
    [
        ("/etc/key.pem", "/etc/key.pem"),
        ("", ""),
        ("$CREDENTIALS_DIRECTORY/key.pem", "/run/credentials/unit/key.pem"),
        # Only as the first part of a path.
        ("$CREDENTIALS_DIRECTORY", "$CREDENTIALS_DIRECTORY"),
        ("/x/$CREDENTIALS_DIRECTORY/key.pem", "/x/$CREDENTIALS_DIRECTORY/key.pem"),
        ("$HOME/key.pem", "$HOME/key.pem"),
    ],
)
def test_file(text, path):
    assert kinds.parse_file(text, {"CREDENTIALS_DIRECTORY": "/run/credentials/unit", "HOME": "/root"}) == path


def test_credential_without_systemd():
    assert kinds.parse_file("$CREDENTIALS_DIRECTORY/key.pem", {}) == "$CREDENTIALS_DIRECTORY/key.pem"


def test_long_socket():
    assert kinds.parse_socket("/" * 107)
    with pytest.raises(ValueError, match="at most 107 bytes"):
        kinds.parse_socket("/" * 108)


def test_level():
    assert kinds.parse_level("debug") == "DEBUG"
    with pytest.raises(ValueError, match="one of NOTSET, DEBUG"):
        kinds.parse_level("chatty")
