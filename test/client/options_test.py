"""The arguments: what the environment adds, and that each command has its help."""

from __future__ import annotations

import pytest

from ovirt_imageio.client import options
from ovirt_imageio.client.commands import COMMANDS


@pytest.fixture
def parser():
    return options.make_parser()


@pytest.mark.parametrize("name", COMMANDS)
def test_help(parser, name, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args([name, "--help"])
    assert end.value.code == 0
    assert "OVIRT_IMG_FINGERPRINT" in capsys.readouterr().out


BOTH = {"OVIRT_IMG_CA": "ca.pem", "OVIRT_IMG_FINGERPRINT": "ab"}


@pytest.mark.parametrize(
    ("arguments", "environ", "trust"),
    [
        ([], {}, (None, None, False)),
        ([], {"OVIRT_IMG_CA": "ca.pem"}, ("ca.pem", None, False)),
        ([], {"OVIRT_IMG_CA": "", "OVIRT_IMG_FINGERPRINT": ""}, (None, None, False)),
        ([], BOTH, (None, "ab", False)),
        (["--cafile", "other.pem"], BOTH, ("other.pem", None, False)),
        (["--fingerprint", "cd"], BOTH, (None, "cd", False)),
        (["--insecure"], BOTH, (None, None, True)),
    ],
)
def test_environment(parser, arguments, environ, trust):
    found = options.parse(parser, ["extents", *arguments, "file"], {"XDG_CONFIG_HOME": "/gone", **environ})
    assert (found.cafile, found.fingerprint, found.insecure) == trust


def test_environment_means_nothing_here(parser):
    found = options.parse(parser, ["info", "file"], {"XDG_CONFIG_HOME": "/gone", **BOTH})
    assert "cafile" not in found
