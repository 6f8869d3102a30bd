"""What a parser knows, as a tree."""

from __future__ import annotations

import argparse

from ovirt_imageio.terminal.tree import FILE, FOLDER, NOTHING, WORD, Argument, Option, describe


def make_parser():
    parser = argparse.ArgumentParser(prog="tool", description="Do things.", epilog="notes")
    parser.add_argument("--conf-dir", "-c", metavar="DIR", default="/etc", help="default %(default)s")
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(metavar="COMMAND")
    copy = commands.add_parser("copy", help="copy a thing", description="Copy a thing.")
    copy.add_argument("-f", "--format", choices=["a", "b"])
    copy.add_argument("--log-file")
    copy.add_argument("--tag", action="append", help="repeatable")
    copy.add_argument("-q", action="store_true")
    copy.add_argument("source", metavar="FILE|URL", help="what")
    return parser


def test_describe():
    tree = describe(make_parser())
    assert (tree.name, tree.about, tree.epilog, tree.arguments) == ("tool", "Do things.", "notes", ())
    assert tree.usage == "tool [-h] [--conf-dir DIR] COMMAND ..."
    assert tree.options[1:] == (Option(("-c", "--conf-dir"), "DIR", FOLDER, (), "default /etc"),)
    [copy] = tree.commands
    assert (copy.name, copy.help, copy.about) == ("copy", "copy a thing", "Copy a thing.")
    assert copy.options[1:] == (
        Option(("-f", "--format"), "a|b", WORD, ("a", "b"), ""),
        Option(("--log-file",), "LOG_FILE", FILE, (), ""),
        Option(("--tag",), "TAG", WORD, (), "repeatable", True),
        Option(("-q",), "", NOTHING, (), ""),
    )
    assert copy.arguments == (Argument("FILE|URL", FILE, "what"),)
