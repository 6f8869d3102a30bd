"""The table of the commands leads to functions, and the parser knows each of them."""

from __future__ import annotations

import importlib

import pytest

from ovirt_imageio.client import commands, options


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_function(name):
    command = commands.COMMANDS[name]
    module = importlib.import_module(f"{commands.__name__}.{command.module}")
    assert command.function in module.__all__
    assert options.ADDERS[name]
