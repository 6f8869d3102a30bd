"""What pages list is complete: statuses, metrics, and the arguments of the programs."""

from __future__ import annotations

import argparse
import re

import pytest

from docs import pages
from ovirt_imageio.admin import cli as admin
from ovirt_imageio.handlers.status import STATUS
from ovirt_imageio.service import cli as service
from ovirt_imageio.service.metrics import Metrics


def first_cells(page: str) -> str:
    """Return the first cells of all tables of a page."""
    return "\n".join(re.findall(r"^\|([^|]*)\|", pages.read(page), re.MULTILINE))


def test_statuses():
    told = set(map(int, re.findall(r"\b[45]\d\d\b", first_cells("docs/images.md"))))
    # What only sessions and the control service answer stands with them.
    told |= set(map(int, re.findall(r"\b(401|409)\b", pages.read("docs/proxy.md") + pages.read("docs/tickets.md"))))
    assert {int(status) for status in STATUS.values()} <= told


def test_metrics():
    told = first_cells("docs/tickets.md")
    # The first of a row is whole; of those after it only the end is told.
    for name in re.findall(r"^# TYPE (\w+) ", Metrics().registry.render(), re.MULTILINE):
        assert f"`{name}`" in told or f"`_{name.partition('_')[2].partition('_')[2]}`" in told, name


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a program."""
    (action,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(action.choices)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the long options of a command."""
    return {name for action in parser._actions for name in action.option_strings if name.startswith("--")}


def test_arguments_of_serve():
    told = set(re.findall(r"--[a-z][a-z-]+", first_cells("docs/serve.md")))
    parser = argparse.ArgumentParser()
    service.add_serve(parser.add_subparsers())
    assert options(commands(parser)["serve"]) - {"--help", "--verbose"} == told


@pytest.mark.parametrize("command", commands(admin.build_parser()))
def test_commands_of_ctl(command):
    assert f"ovirt-imageioctl {command}" in pages.read("docs/tickets.md")
