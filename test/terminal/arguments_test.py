"""Arguments: what is near, and what is not."""

from __future__ import annotations

import argparse

import pytest

from ovirt_imageio.terminal import arguments


@pytest.fixture
def parser():
    parser = arguments.Parser(prog="program")
    commands = parser.add_subparsers(dest="command")
    for name in ("upload", "download", "del-ticket"):
        commands.add_parser(name).add_argument("--level", choices=["debug", "info"])
    return parser


@pytest.mark.parametrize(
    "words, near",
    [
        (["uplod"], "did you mean 'upload'?"),
        (["del-tiket"], "did you mean 'del-ticket'?"),
        (["upload", "--level", "debgu"], "did you mean 'debug'?"),
    ],
)
def test_nearest(parser, capsys, words, near):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: program")
    assert said.rstrip().endswith(near)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["upload", "--levl", "debug"], "--levl debug; did you mean --level?"),
        (["upload", "--levl=debug"], "--levl=debug; did you mean --level?"),
        (["upload", "extra", "--Level"], "extra --Level; did you mean --level?"),
        (["download", "--resume"], "--resume"),
        (["--verion"], "--verion; did you mean --version?"),
    ],
)
def test_nearest_option(capsys, words, near):
    parser = arguments.Parser(prog="program")
    parser.add_argument("--version")
    commands = parser.add_subparsers(dest="command")
    for name, option in {"upload": "--level", "download": "--keep"}.items():
        command = commands.add_parser(name)
        command.add_argument(option)
        command.set_defaults(parser=command)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(words)
    name = f"program {words[0]}" if words[0] in ("upload", "download") else "program"
    assert capsys.readouterr().err.splitlines()[-1] == f"{name}: error: unrecognized arguments: {near}"


@pytest.mark.parametrize("words", [["xyz"], ["upload", "--unknown"], ["upload", "--level"]])
def test_nothing_is_near(parser, capsys, words):
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize("listed", ["'upload', 'download'", "upload, download"])
def test_words_of_every_python(listed):
    message = f"argument COMMAND: invalid choice: 'dwnload' (choose from {listed})"
    assert arguments.suggestion(message) == "; did you mean 'download'?"


def test_types():
    assert arguments.size("1.5k") == 1536
    assert arguments.duration("1h") == 3600
    for kind in (arguments.size, arguments.duration):
        with pytest.raises(argparse.ArgumentTypeError, match="'x' is not a"):
            kind("x")
